//! What clickdetect 1.18.4 reads of each kind, and how it treats certificates there.

/// A kind of clickdetect's.
pub struct Known {
    pub kind: &'static str,
    /// What it reads; it ignores all else.
    pub keys: &'static [&'static str],
    pub verify: Verify,
    /// Where it goes without a `url`.
    pub is_always_https: bool,
}

/// What clickdetect makes of `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It has none, and verifies, or opens no TLS.
    Nothing,
    /// Read, by default false.
    False,
    /// Read, by default true.
    True,
    /// Read, and never heeded: certificates are not verified.
    Ignored,
    /// Whether there is TLS at all.
    Tls,
}

impl Known {
    const fn new(kind: &'static str, verify: Verify, keys: &'static [&'static str]) -> Self {
        Self { kind, keys, verify, is_always_https: false }
    }

    const fn always_https(self) -> Self {
        Self { is_always_https: true, ..self }
    }
}

pub const DATASOURCES: &[Known] = &[
    Known::new("clickhouse", Verify::Tls, &["database", "host", "port", "username", "password", "verify"]),
    Known::new("databricks", Verify::Nothing, &["host", "path", "token", "catalog"]),
    Known::new(
        "duckdb",
        Verify::True,
        &[
            "database",
            "s3_key",
            "s3_secret",
            "s3_host",
            "s3_region",
            "s3_type",
            "r2_account",
            "ssl",
            "verify",
        ],
    ),
    Known::new(
        "elasticsearch",
        Verify::Ignored,
        &["url", "index", "username", "password", "api_key", "verify"],
    ),
    Known::new("loki", Verify::False, &["url", "username", "password", "verify", "org_id"]),
    Known::new("opensearch", Verify::Ignored, &["url", "index", "username", "password", "verify"]),
    Known::new("opensearch-ppl", Verify::Ignored, &["url", "username", "password", "verify"]),
    Known::new("postgresql", Verify::Nothing, &["database", "host", "port", "username", "password"]),
    Known::new(
        "victorialogs",
        Verify::Ignored,
        &["url", "username", "password", "verify", "account_id", "project_id"],
    ),
];

pub const WEBHOOKS: &[Known] = &[
    Known::new(
        "alertmanager",
        Verify::False,
        &["name", "url", "labels", "severity_map", "generator_url", "expire_after", "headers", "verify"],
    ),
    Known::new(
        "discord",
        Verify::False,
        &["name", "url", "username", "avatar", "verify", "timeout", "template"],
    ),
    // STARTTLS and TLS by Python's smtplib without a context: nothing is verified.
    Known::new(
        "email",
        Verify::Ignored,
        &["name", "host", "port", "username", "password", "from", "to", "use_tls", "subject", "template"],
    )
    .always_https(),
    Known::new(
        "forgejo",
        Verify::Nothing,
        &["name", "url", "owner", "repository", "token", "title", "template"],
    ),
    Known::new("generic", Verify::False, &["name", "url", "headers", "verify", "timeout", "template"]),
    Known::new(
        "iris",
        Verify::False,
        &["name", "url", "api_key", "customer_id", "severity_map", "headers", "verify"],
    ),
    Known::new(
        "opsgenie",
        Verify::False,
        &["name", "url", "api_key", "source", "severity_map", "headers", "verify"],
    )
    .always_https(),
    Known::new("slack", Verify::True, &["name", "url", "verify", "timeout", "template"]),
    Known::new("teams", Verify::False, &["name", "url", "verify", "timeout", "template"]),
    Known::new("telegram", Verify::False, &["name", "token", "chat_id", "verify", "timeout", "template"])
        .always_https(),
    // Its `type`, the alert's, is at the same time the webhook's, `thehive`.
    Known::new(
        "thehive",
        Verify::False,
        &["name", "url", "api_key", "source", "severity_map", "tlp", "pap", "headers", "verify"],
    ),
];

/// Attributes of a detector that clickdetect's templates can read and ours cannot.
pub const DETECTOR_ATTRIBUTES: &[&str] =
    &["for_time_seconds", "all_is_sigma", "datasource", "store", "store_key", "jinja_env"];
/// Likewise of a rule.
pub const RULE_ATTRIBUTES: &[&str] = &["detector", "condition_operator", "condition_value"];

/// Which of clickdetect's providers of a model are not inside the process.
pub const REMOTE_PROVIDERS: &[&str] =
    &["openai", "anthropic", "google", "huggingface", "ollama", "openrouter", "deepseek"];
