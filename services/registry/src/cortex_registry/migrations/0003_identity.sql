-- Who may administer: organisations, users, browser sessions, personal tokens, and what slows a guesser down.

CREATE TABLE orgs (
    id         uuid PRIMARY KEY,
    version    bigint NOT NULL DEFAULT 1,
    name       varchar(128) NOT NULL,
    -- What makes the name unique: normalised and case-folded by the registry, whatever the database's locale.
    name_key   varchar(512) NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id                   uuid PRIMARY KEY,
    version              bigint NOT NULL DEFAULT 1,
    username             varchar(64) NOT NULL,
    username_key         varchar(256) NOT NULL UNIQUE,
    display_name         varchar(128) NOT NULL DEFAULT '',
    role                 varchar(16) NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    org_id               uuid REFERENCES orgs (id),
    -- Argon2id in PHC string format; NULL: cannot sign in with a password.
    password_hash        text,
    must_change_password boolean NOT NULL DEFAULT FALSE,
    disabled_at          timestamptz,
    last_login_at        timestamptz,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_users_org ON users (org_id);

-- Browser sessions. The cookie holds a random token, of which only the digest is kept.
CREATE TABLE sessions (
    digest       char(64) PRIMARY KEY,
    -- What the user may see and name it by.
    id           uuid NOT NULL UNIQUE,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    csrf_digest  char(64) NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    address      varchar(64),
    user_agent   varchar(256)
);
CREATE INDEX idx_sessions_user ON sessions (user_id);
CREATE INDEX idx_sessions_expiry ON sessions (expires_at);

-- Personal tokens for scripts; a token never has more rights than its user has now, nor than its own role.
CREATE TABLE admin_tokens (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         varchar(128) NOT NULL,
    prefix       varchar(32) NOT NULL,
    digest       char(64) NOT NULL UNIQUE,
    role         varchar(16) NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    expires_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz
);
CREATE INDEX idx_admin_tokens_user ON admin_tokens (user_id);

-- Failed sign-ins per user name and per address (`user:<name>`, `address:<ip>`).
CREATE TABLE login_failures (
    subject       varchar(300) PRIMARY KEY,
    failures      integer NOT NULL,
    first_at      timestamptz NOT NULL,
    last_at       timestamptz NOT NULL,
    blocked_until timestamptz
);
CREATE INDEX idx_login_failures_last ON login_failures (last_at);

-- Who did what from where: the audit log learns the address and the kind of credential.
ALTER TABLE audit ADD COLUMN user_id varchar(64);
ALTER TABLE audit ADD COLUMN address varchar(64);
CREATE INDEX idx_audit_subject ON audit (subject, id DESC);
CREATE INDEX idx_audit_actor ON audit (actor, id DESC);
