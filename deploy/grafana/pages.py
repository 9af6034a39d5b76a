"""What is on each Grafana board.

Engines' own metrics come from several members of the health service, each for the replicas it probes, so everything is aggregated
over `instance`.
"""

from panels import MODEL, RATE, Board, Panel, number, quantiles, rate

ERRORS = 'sum(rate(gateway_requests_total{status=~"5.."}[$__rate_interval])) / sum(rate(gateway_requests_total[$__rate_interval]))'

OVERVIEW = Board(
    "cortex-overview",
    "Cortex: overview",
    (
        (
            "Now",
            (
                number("Requests per second", f"sum(rate(gateway_requests_total{RATE}))", unit="reqps"),
                number("Ended with a 5xx", ERRORS, unit="percentunit", red_above=0.01),
                number("In flight", "sum(gateway_in_flight_requests)"),
                number("Waiting for a replica", "sum(gateway_waiting_requests)", red_above=20),
                number("Healthy replicas", 'sum(cortex_health_replicas{verdict="healthy"})'),
                number("Unhealthy replicas", 'sum(cortex_health_replicas{verdict="unhealthy"})', red_above=1),
            ),
        ),
        (
            "Clients",
            (
                Panel("Requests by status", rate("gateway_requests_total", "status"), "reqps", stacked=True),
                Panel("Until the first bytes of a stream", quantiles("gateway_stream_ttft_seconds"), "s"),
                Panel("Until the end of the answer", quantiles("gateway_request_latency_seconds"), "s"),
            ),
        ),
        (
            "Services",
            (
                Panel(
                    "Answering",
                    (('sum by (job) (up{job=~"cortex-.*"})', "{{job}}"),),
                    about="Replicas of each service that Prometheus reaches.",
                ),
                Panel(
                    "Without NATS",
                    (("max by (instance) (gateway_projection_staleness_seconds)", "{{instance}}"),),
                    "s",
                    "A gateway serves on from what it last knew.",
                    red_above=60,
                ),
                Panel(
                    "Changes on their way",
                    (
                        ("max(cortex_registry_outbox_rows)", "events in the outbox"),
                        ("sum by (kind) (cortex_orchestrator_unsent)", "orchestrator, {{kind}}"),
                        ("sum(cortex_health_unwritten)", "health"),
                    ),
                    about="Committed, observed or concluded, and not yet published.",
                ),
            ),
        ),
        (
            "Messages",
            (
                Panel("Handled, by outcome", rate("cortex_messages_handled_total", "outcome"), "ops"),
                Panel("Published", rate("cortex_events_published_total", "subject"), "ops"),
                Panel(
                    "Memory of the services",
                    (('sum by (job) (process_resident_memory_bytes{job=~"cortex-.*"})', "{{job}}"),),
                    "bytes",
                ),
            ),
        ),
    ),
)

MODELS = Board(
    "cortex-models",
    "Cortex: models and engines",
    (
        (
            "Replicas",
            (
                Panel(
                    "Healthy replicas of each model",
                    ((f"sum by (model) (max by (model, replica) (cortex_engine_healthy{{{MODEL}}}))", "{{model}}"),),
                ),
                Panel(
                    "By verdict",
                    (("sum by (engine_type, verdict) (cortex_health_replicas)", "{{engine_type}} {{verdict}}"),),
                ),
                Panel(
                    "Engines by state", (("sum by (state) (cortex_orchestrator_replicas)", "{{state}}"),), stacked=True
                ),
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "Requests in an engine",
                    (
                        (
                            f"sum by (model) (max by (model, replica) (cortex_engine_requests_running{{{MODEL}}}))",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    "Requests in an engine's queue",
                    (
                        (
                            f"sum by (model) (max by (model, replica) (cortex_engine_requests_waiting{{{MODEL}}}))",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    "KV cache in use",
                    (
                        (
                            f"max by (model, replica) (cortex_engine_kv_cache_usage_ratio{{{MODEL}}})",
                            "{{model}} {{replica}}",
                        ),
                    ),
                    "percentunit",
                    red_above=0.95,
                ),
            ),
        ),
        (
            "Tokens",
            (
                Panel("Generated per second", rate("cortex_engine_generated_tokens_total", "model", MODEL)),
                Panel("Read per second", rate("cortex_engine_prompt_tokens_total", "model", MODEL)),
                Panel(
                    "Found in the prefix cache",
                    (
                        (
                            (
                                f"sum by (model) (rate(cortex_engine_cached_prompt_tokens_total{{{MODEL}}}{RATE})) / "
                                f"sum by (model) (rate(cortex_engine_prompt_tokens_total{{{MODEL}}}{RATE}))"
                            ),
                            "{{model}}",
                        ),
                    ),
                    "percentunit",
                ),
            ),
        ),
        (
            "Speed of engines that tell (vLLM)",
            (
                Panel(
                    "Time to the first token",
                    quantiles("cortex_engine_time_to_first_token_seconds", "model", MODEL),
                    "s",
                ),
                Panel(
                    "Between two tokens", quantiles("cortex_engine_inter_token_latency_seconds", "model", MODEL), "s"
                ),
                Panel("In the engine's queue", quantiles("cortex_engine_queue_seconds", "model", MODEL), "s"),
            ),
        ),
        (
            "Starts and failures",
            (
                Panel(
                    "Engines launched",
                    (
                        (
                            f"sum by (engine, outcome) (increase(cortex_orchestrator_launches_total{RATE}))",
                            "{{engine}} {{outcome}}",
                        ),
                    ),
                ),
                Panel(
                    "Failures by diagnosis",
                    (
                        (
                            f"sum by (engine_type, code) (increase(cortex_orchestrator_engine_failures_total{RATE}))",
                            "{{engine_type}} {{code}}",
                        ),
                    ),
                ),
                Panel(
                    "No room, and room made",
                    (
                        (f"sum(increase(cortex_orchestrator_placement_rejections_total{RATE}))", "no room"),
                        (f"sum(increase(cortex_orchestrator_evictions_total{RATE}))", "gave way to another"),
                    ),
                ),
            ),
        ),
    ),
    variables=(("model", "label_values(cortex_engine_healthy, model)"),),
)

GATEWAY = Board(
    "cortex-gateway",
    "Cortex: gateway",
    (
        (
            "Requests",
            (
                Panel("By route", rate("gateway_requests_total", "route"), "reqps", stacked=True),
                Panel("Refused or failed", rate("gateway_requests_total", "status", 'status=~"[45].."'), "reqps"),
                Panel("Clients that hung up", rate("gateway_client_disconnects_total", "route"), "reqps"),
            ),
        ),
        (
            "Time",
            (
                Panel("Until the end, p95 by route", (quantiles("gateway_request_latency_seconds", "route")[1],), "s"),
                Panel(
                    "Until an engine's answer began",
                    quantiles("gateway_upstream_latency_by_engine_seconds", "engine_type"),
                    "s",
                ),
                Panel("Until the first bytes of a stream", quantiles("gateway_stream_ttft_seconds"), "s"),
            ),
        ),
        (
            "Models",
            (
                Panel("Until the first bytes, by model", quantiles("gateway_ttft_seconds", "model"), "s"),
                Panel("Between two tokens, by model", quantiles("gateway_inter_token_seconds", "model"), "s"),
                Panel("Waiting for a slot, by model", (("sum by (model) (gateway_queue_length)", "{{model}}"),)),
            ),
        ),
        (
            "Keys and limits",
            (
                Panel("Refused for their key", rate("gateway_key_auth_blocked_total", "reason"), "reqps"),
                Panel("Refused by a limit", rate("gateway_limit_refusals_total", "limit"), "reqps"),
                Panel("Refused while waiting", rate("gateway_queue_refusals_total", "reason"), "reqps"),
            ),
        ),
        (
            "Engines",
            (
                Panel("Sent to engines", rate("gateway_upstream_selected_by_engine_total", "engine_type"), "reqps"),
                Panel("Tried again", rate("gateway_upstream_retries_total", "reason"), "ops"),
                Panel("Breakers opened", rate("gateway_breaker_open_total", "engine_type"), "ops"),
            ),
        ),
        (
            "Load",
            (
                Panel("In flight", (("sum by (instance) (gateway_in_flight_requests)", "{{instance}}"),)),
                Panel("Waiting", (("sum by (instance) (gateway_waiting_requests)", "{{instance}}"),)),
                Panel("Replicas to choose from", (("max by (instance) (gateway_routing_targets)", "{{instance}}"),)),
            ),
        ),
        (
            "Process",
            (
                Panel(
                    "Processor", rate("process_cpu_seconds_total", "instance", 'job="cortex-gateway"'), "percentunit"
                ),
                Panel(
                    "Memory",
                    (('max by (instance) (process_resident_memory_bytes{job="cortex-gateway"})', "{{instance}}"),),
                    "bytes",
                ),
                Panel(
                    "Open files and connections",
                    (('max by (instance) (process_open_fds{job="cortex-gateway"})', "{{instance}}"),),
                ),
            ),
        ),
    ),
)

USAGE = Board(
    "cortex-usage",
    "Cortex: usage",
    (
        (
            "Tokens settled by the gateways",
            (
                Panel(
                    "Completion, per second",
                    rate("gateway_tokens_total", "model", f'kind="completion", {MODEL}'),
                    stacked=True,
                ),
                Panel(
                    "Prompt, per second", rate("gateway_tokens_total", "model", f'kind="prompt", {MODEL}'), stacked=True
                ),
                Panel(
                    "In the last hour, by kind of engine",
                    (
                        (
                            f"sum by (engine_type, kind) (increase(gateway_tokens_total{{{MODEL}}}[1h]))",
                            "{{engine_type}} {{kind}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel("By model", rate("gateway_model_requests_total", "model", MODEL), "reqps", stacked=True),
                Panel(
                    "By how they ended", rate("gateway_model_requests_total", "outcome", MODEL), "reqps", stacked=True
                ),
                Panel("Refused by a limit of a key", rate("gateway_limit_refusals_total", "limit"), "reqps"),
            ),
        ),
        (
            "Records",
            (
                Panel(
                    "On their way from the gateways",
                    rate("gateway_usage_records_total", "outcome"),
                    "ops",
                    "Written to the spool, published to NATS; dropped and unreadable ones are lost.",
                ),
                Panel(
                    "Stored by the registries",
                    (
                        (f"sum(rate(cortex_registry_usage_rows_inserted_total{RATE}))", "new"),
                        (f"sum(rate(cortex_registry_usage_rows_repeated_total{RATE}))", "there already"),
                    ),
                    "ops",
                ),
                Panel(
                    "Waiting on a gateway's disk",
                    (("max by (instance) (gateway_usage_spool_bytes)", "{{instance}}"),),
                    "bytes",
                    red_above=1e6,
                ),
            ),
        ),
        (
            "What was lost",
            (
                number(
                    "Records lost in this time",
                    'sum(increase(gateway_usage_records_total{outcome=~"dropped|unreadable"}[$__range]))',
                    red_above=1,
                ),
                number(
                    "Messages put aside in this time",
                    'sum(increase(cortex_messages_handled_total{outcome="buried"}[$__range]))',
                    red_above=1,
                ),
                number(
                    "Records stored in this time", "sum(increase(cortex_registry_usage_rows_inserted_total[$__range]))"
                ),
            ),
        ),
    ),
    variables=(("model", "label_values(gateway_model_requests_total, model)"),),
)

BOARDS = (OVERVIEW, MODELS, GATEWAY, USAGE)
