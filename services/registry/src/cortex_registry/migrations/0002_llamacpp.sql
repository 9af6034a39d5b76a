-- Models served by llama.cpp, additively: rows that are there become engine_type 'vllm' and change in nothing else.

ALTER TABLE models ADD COLUMN engine_type VARCHAR(16) DEFAULT 'vllm' NOT NULL;
CREATE INDEX idx_models_engine_type ON models (engine_type);

ALTER TABLE models ADD COLUMN ngl INTEGER;
ALTER TABLE models ADD COLUMN tensor_split VARCHAR(128);
ALTER TABLE models ADD COLUMN batch_size INTEGER DEFAULT 512;
ALTER TABLE models ADD COLUMN threads INTEGER;
ALTER TABLE models ADD COLUMN context_size INTEGER DEFAULT 8192;
ALTER TABLE models ADD COLUMN rope_freq_base FLOAT;
ALTER TABLE models ADD COLUMN rope_freq_scale FLOAT;
ALTER TABLE models ADD COLUMN flash_attention BOOLEAN DEFAULT TRUE;
ALTER TABLE models ADD COLUMN mlock BOOLEAN DEFAULT FALSE;
ALTER TABLE models ADD COLUMN no_mmap BOOLEAN DEFAULT FALSE;
ALTER TABLE models ADD COLUMN numa_policy VARCHAR(32);
ALTER TABLE models ADD COLUMN split_mode VARCHAR(32);
