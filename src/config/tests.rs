use std::num::NonZeroU16;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::environment::misspelt;
use super::{Config, ConfigError, Secret, Time, thirty_days};

fn load(toml: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flowcast.toml");
    std::fs::write(&path, toml).unwrap();
    Config::load(Some(&path))
        .map_err(|error| ConfigError(error.0.replace(&folder.path().display().to_string(), "")))
}

#[test]
fn a_variable_with_a_single_underscore_is_detected() {
    assert_eq!(misspelt("FLOWCAST_REDIS_URL").as_deref(), Some("FLOWCAST_REDIS__URL"));
    assert_eq!(
        misspelt("FLOWCAST_ACCOUNTS_MAIN_API_TOKEN").as_deref(),
        Some("FLOWCAST_ACCOUNTS__MAIN__API_TOKEN")
    );
    assert_eq!(misspelt("FLOWCAST_HTTP_PUBLIC_URL").as_deref(), Some("FLOWCAST_HTTP__PUBLIC_URL"));
    for right in ["FLOWCAST_REDIS__URL", "FLOWCAST_TOKEN", "FLOWCAST_LOG", "FLOWCAST_CONFIG", "REDIS_URL"] {
        assert_eq!(misspelt(right), None, "{right}");
    }
}

#[test]
fn a_webhook_with_unknown_events_is_refused() {
    let webhook = |events: &str| {
        load(&format!("[events]\nwebhooks = [{{ url = \"https://example.com\", events = {events} }}]"))
    };
    assert!(webhook(r#"["*", "message.*", "flow.completed"]"#).is_ok());
    for (wrong, meant) in
        [("campain.*", "campaign.*"), ("message.x.*", ""), ("campaign", "campaign.*"), ("mess*", "")]
    {
        let error = webhook(&format!("[{wrong:?}]")).unwrap_err().to_string();
        assert!(error.contains(&format!("unknown events {wrong:?}")) && error.contains(meant), "{error}");
    }
}

#[test]
fn the_example_of_the_contract_is_loaded() {
    let config = load(
        r#"
        [amqp]
        url = "amqp://guest:guest@127.0.0.1:5672/%2f"
        [redis]
        url = "redis://127.0.0.1:6379/0"
        [store]
        path = "x.db"
        [http]
        listen = "127.0.0.1:8080"
        public_url = "https://campaigns.example.com"
        tokens = [{ name = "marketing", role = "operator", token = { env = "FLOWCAST_TOKEN" } }]
        [audiences]
        root = "audiences"
        allow = ["https://files.example.com/"]
        [accounts.main]
        provider = "exotel"
        region = "mumbai"
        account_sid = "acme1"
        api_key = "key1"
        api_token = "token1"
        limits = { requests = "200/min", messages = "80/s", recipients = "10000/d" }
        concurrency = 8
        [accounts.kaleyra]
        provider = "kaleyra"
        region = "in"
        account_sid = "HXAP1600000097IN"
        api_key = "x"
        "#,
    )
    .unwrap();
    let main = &config.accounts["main"];
    assert_eq!(main.address("main").unwrap().as_str(), "https://api.in.exotel.com/");
    assert_eq!(main.concurrency.map(NonZeroU16::get), Some(8));
    let kaleyra = &config.accounts["kaleyra"];
    assert_eq!(kaleyra.address("kaleyra").unwrap().as_str(), "https://api.in.kaleyra.io/");
    assert_eq!(kaleyra.credentials("kaleyra").unwrap().account_sid, "HXAP1600000097IN");
    assert!(!format!("{config:?}").contains("token1"));
    assert!(!format!("{config:?}").contains("guest"));
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_most_similar_key() {
    let error = load("[accounts.main]\nprovider = \"exotel\"\nacount_sid = \"x\"").unwrap_err().0;
    assert!(error.contains("flowcast.toml: accounts.main"), "{error}");
    assert!(error.contains("unknown key \"acount_sid\"; did you mean \"account_sid\"?"), "{error}");
    let error =
        load("[accounts.main]\nprovider = \"exotel\"\nlimits = { messages = \"0/s\" }").unwrap_err().0;
    assert!(error.contains("accounts.main.limits.messages") && error.contains("allows nothing"), "{error}");
}

#[test]
fn replies_are_matched_for_three_days_by_default_or_another_time_or_never() {
    let within = |line: &str| {
        let config = load(&format!("[accounts.main]\nprovider = \"exotel\"\n{line}"));
        config.map(|config| config.accounts["main"].answers_within.0)
    };
    assert_eq!(within("").unwrap(), Duration::from_hours(72));
    assert_eq!(within("answers_within = \"2h\"").unwrap(), Duration::from_hours(2));
    assert_eq!(within("answers_within = \"0s\"").unwrap(), Duration::ZERO);
    let error = within("answers_within = \"soon\"").unwrap_err().0;
    assert!(error.contains("accounts.main.answers_within") && error.contains("0s"), "{error}");
}

#[test]
fn an_unknown_provider_or_region_names_the_most_similar() {
    let error = load("[accounts.main]\nprovider = \"kaleira\"").unwrap_err().0;
    assert!(error.contains("unknown provider \"kaleira\"; did you mean \"kaleyra\"?"), "{error}");
    let config = load("[accounts.main]\nprovider = \"kaleyra\"\nregion = \"mumbai\"").unwrap();
    assert_eq!(
        config.accounts["main"].address("main").unwrap_err().0,
        "accounts.main.region \"mumbai\" is unknown to kaleyra; expected one of: in, ap, eu"
    );
}

#[test]
fn errors_say_what_to_write_and_quote_no_value() {
    for (text, expected) in [
        (
            "[http]\ntokens = [\"secret\"]",
            "http.tokens.0: must be a table with name, role and token, not a string",
        ),
        ("[http]\ntokens = [{ name = \"a\" }]", "http.tokens.0: \"role\" is required but missing"),
        (
            "[http]\ntokens = [{ name = \"a\", role = \"viewr\", token = \"secret\" }]",
            "http.tokens.0.role: unknown value \"viewr\"; did you mean \"viewer\"?",
        ),
        ("[http]\npublic_url = \"secret\"", "http.public_url: must be an http:// or https:// address"),
        (
            "[accounts.main]\nprovider = \"meta\"\nbase_url = \"ftp://secret@x\"",
            "accounts.main.base_url: must be an http:// or https:// address",
        ),
        (
            "[accounts.main]\nprovider = \"meta\"\nlimits.messages = 80",
            "accounts.main.limits.messages: must be a limit such as \"80/s\", not a whole number",
        ),
        ("[accounts]\nmain = 12345", "accounts.main: must be a table, not a whole number"),
        ("[audiences]\ncolumns = \"secret\"", "audiences.columns: must be a whole number, not a string"),
        (
            "[accounts.main]\nprovider = \"meta\"\napi_token = secret",
            "line 3, column 13: not valid TOML: invalid string; expected `\"`, `'`",
        ),
        (
            "[accounts.main]\napi_token = \"secret\n",
            "line 2, column 20: not valid TOML: invalid basic string",
        ),
        (
            "[accounts.main]\nprovider = \"meta\"\nlimits.messages = \"80/s,burst=0\"",
            "accounts.main.limits.messages: a burst of 0 allows nothing; write the number of messages that may be sent at once, or omit it",
        ),
    ] {
        let error = load(text).unwrap_err().0;
        assert!(error.ends_with(expected), "{text}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn times_have_defaults() {
    let config = load("[redis]\nurl = \"redis://x\"\n[worker]\ngrace = \"5s\"").unwrap();
    assert_eq!(
        (config.worker.grace, config.redis.unwrap().keep_for),
        (Time(Duration::from_secs(5)), thirty_days())
    );
}

#[test]
fn a_missing_credential_names_key_and_variable() {
    let config = load("[accounts.main]\nprovider = \"exotel\"\naccount_sid = \"a\"").unwrap();
    let error = config.accounts["main"].credentials("main").err().unwrap().0;
    assert_eq!(
        error,
        "accounts.main.api_key is missing: set it in the configuration, or as FLOWCAST_ACCOUNTS__MAIN__API_KEY"
    );
    let env = Secret::Env { env: "FLOWCAST_NO_SUCH".into() };
    assert_eq!(env.read("k").unwrap_err().0, "k: the variable FLOWCAST_NO_SUCH is not set");
}

#[test]
fn numbers_may_be_texts_as_in_the_environment() {
    let with = |replicas: &str| load(&format!("[redis]\nurl = \"redis://h\"\nreplicas = {replicas}\n"));
    for replicas in ["2", "\"2\""] {
        assert_eq!(with(replicas).unwrap().redis.unwrap().replicas, 2);
    }
    for replicas in ["-1", "\"two\"", "[]"] {
        let error = with(replicas).unwrap_err().to_string();
        assert!(error.contains("redis.replicas") && error.contains("whole number from 0"), "{error}");
    }
}

#[test]
fn a_secret_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(Secret::File { file: file.clone() }.read("k").unwrap().expose_secret(), "s3cret");
    std::fs::write(&file, "\n").unwrap();
    assert_eq!(Secret::File { file }.read("k").unwrap_err().0, "k is empty");
}
