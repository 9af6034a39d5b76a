-- name: list_models
SELECT * FROM models ORDER BY created_at, id;

-- name: list_live_models
SELECT * FROM models WHERE archived_at IS NULL ORDER BY created_at, id;

-- name: find_live_models
SELECT * FROM models WHERE id = ANY($1::uuid[]) AND archived_at IS NULL;

-- name: find_model_by_id
SELECT * FROM models WHERE id = $1;

-- name: find_model_by_name
SELECT m.* FROM models m JOIN served_names n ON n.model_id = m.id WHERE n.name = $1;

-- name: insert_model
INSERT INTO models (
    id, version, name, served_model_name, aliases, task, engine_type, repo_id, local_path, engine_image, extra_args,
    extra_env, hf_token_sealed, replicas, placement, lifecycle, idle_ttl_s, desired_state, desired_since,
    restart_generation, request_defaults, startup_timeout_s, stop_timeout_s, request_timeout_s, stream_timeout_s,
    routing_policy, fallbacks, external, correlation_id, causation_id, archived_at, created_at,
    updated_at
)
SELECT
    id, version, name, served_model_name, aliases, task, engine_type, repo_id, local_path, engine_image, extra_args,
    extra_env, hf_token_sealed, replicas, placement, lifecycle, idle_ttl_s, desired_state, desired_since,
    restart_generation, request_defaults, startup_timeout_s, stop_timeout_s, request_timeout_s, stream_timeout_s,
    routing_policy, fallbacks, external, correlation_id, causation_id, archived_at, created_at,
    updated_at
FROM jsonb_populate_record(NULL::models, $1::jsonb);

-- name: update_model
UPDATE models SET (
    version, name, served_model_name, aliases, task, repo_id, local_path, engine_image, extra_args, extra_env,
    hf_token_sealed, replicas, placement, lifecycle, idle_ttl_s, desired_state, desired_since, restart_generation,
    request_defaults, startup_timeout_s, stop_timeout_s, request_timeout_s, stream_timeout_s, routing_policy,
    fallbacks, external, correlation_id, causation_id, archived_at, updated_at
) = (
    SELECT
        version, name, served_model_name, aliases, task, repo_id, local_path, engine_image, extra_args, extra_env,
        hf_token_sealed, replicas, placement, lifecycle, idle_ttl_s, desired_state, desired_since, restart_generation,
        request_defaults, startup_timeout_s, stop_timeout_s, request_timeout_s, stream_timeout_s, routing_policy,
        fallbacks, external, correlation_id, causation_id, archived_at, updated_at
    FROM jsonb_populate_record(NULL::models, $1::jsonb)
)
WHERE id = $2 AND version = $3
RETURNING id;

-- name: set_llamacpp_options
UPDATE models SET (
    ngl, tensor_split, batch_size, threads, context_size, rope_freq_base, rope_freq_scale, flash_attention, mlock,
    no_mmap, numa_policy, split_mode, engine_options
) = (
    SELECT
        ngl, tensor_split, batch_size, threads, context_size, rope_freq_base, rope_freq_scale, flash_attention, mlock,
        no_mmap, numa_policy, split_mode, engine_options
    FROM jsonb_populate_record(NULL::models, $1::jsonb)
)
WHERE id = $2;

-- name: set_vllm_options
UPDATE models SET (
    dtype, tp_size, pipeline_parallel_size, gpu_memory_utilization, max_model_len, kv_cache_dtype,
    max_num_batched_tokens, max_num_seqs, quantization, block_size, cpu_offload_gb, enforce_eager, trust_remote_code,
    enable_prefix_caching, prefix_caching_hash_algo, enable_chunked_prefill, tokenizer, hf_config_path,
    attention_backend, engine_options
) = (
    SELECT
        dtype, tp_size, pipeline_parallel_size, gpu_memory_utilization, max_model_len, kv_cache_dtype,
        max_num_batched_tokens, max_num_seqs, quantization, block_size, cpu_offload_gb, enforce_eager,
        trust_remote_code, enable_prefix_caching, prefix_caching_hash_algo, enable_chunked_prefill, tokenizer,
        hf_config_path, attention_backend, engine_options
    FROM jsonb_populate_record(NULL::models, $1::jsonb)
)
WHERE id = $2;

-- name: clear_served_names
DELETE FROM served_names WHERE model_id = $1;

-- name: insert_served_names
INSERT INTO served_names (name, model_id) SELECT unnest($1::text[]), $2;

-- name: delete_model
DELETE FROM models WHERE id = $1 AND version = $2 RETURNING id;

-- name: insert_revision
INSERT INTO model_revisions (model_id, version, action, author, changed, document, request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: raise_model_version
UPDATE models SET version = $2::bigint + 1 WHERE id = $1 AND version < $2::bigint;

-- name: lock_model
SELECT version FROM models WHERE id = $1 FOR UPDATE;

-- name: list_announced
SELECT model_id, state, since FROM announced_states;

-- name: find_announced
SELECT state, since FROM announced_states WHERE model_id = $1;

-- name: upsert_announced
INSERT INTO announced_states (model_id, state, since) VALUES ($1, $2, $3)
ON CONFLICT (model_id) DO UPDATE SET state = excluded.state, since = excluded.since;
