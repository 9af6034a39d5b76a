-- Conversations of the playground: each is one document of its user's, bounded in size by the registry.

CREATE TABLE chats (
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id         uuid NOT NULL,
    version    bigint NOT NULL DEFAULT 1,
    title      varchar(200) NOT NULL,
    models     text[] NOT NULL DEFAULT '{}',
    content    jsonb NOT NULL,
    bytes      integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, id)
);
CREATE INDEX idx_chats_updated ON chats (user_id, updated_at DESC);
