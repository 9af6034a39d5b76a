"""Pure decisions of the orchestrator."""
