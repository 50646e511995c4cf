//! Whole files: what they mean, and what is said about the wrong ones.

use super::*;

use std::fs;

use proptest::prelude::*;

/// The environment of the tests.
fn env(name: &str) -> Option<String> {
    match name {
        "SHOP_PASSWORD" | "SHOP_BACKEND_PASSWORD" => Some("open sesame: #1".to_owned()),
        "PORT" => Some("5433".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, &env).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The database `shop` with these lines in place of `...`.
fn shop(lines: &str) -> String {
    format!(
        "auth: {{ method: trust }}\ndatabases:\n  shop:\n    backend: {{ user: shop }}\n{lines}\n"
    )
}

const SHARDS: &str = "    shards: [{ name: s0, primary: a }, { name: s1, primary: b }]\n";

/// Files and everything that is said about them; `REWRITE=1` writes the file anew.
#[test]
fn problems_read_as_recorded() {
    datadriven::walk("src/config/testdata/problems.test", |file| {
        file.run(|case| match Config::parse(&case.input, &env) {
            Ok(_) => "ok\n".to_owned(),
            Err(problems) => format!("{problems}\n"),
        });
    });
}

#[test]
fn the_default_file_fits_the_demo() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.yaml");
    let config = Config::load(&path, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:6432"]);
    assert_eq!(
        config.metrics,
        Some(SocketAddr::from(([127, 0, 0, 1], 9187)))
    );
    let shop = &config.databases["shop"];
    let servers: Vec<String> = shop
        .shards
        .iter()
        .flat_map(|shard| &shard.servers)
        .map(|server| server.address.to_string())
        .collect();
    let ports = [15432, 15433, 15434, 15435].map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(servers, ports);
    let sharded = TableRule::Sharded {
        key: vec!["user_id".to_owned()],
        method: Method::Hash(HashKind::Postgres),
    };
    for table in ["users", "orders", "order_items"] {
        assert_eq!(shop.tables.rule("public", table), Some(&sharded));
    }
    let products = shop.tables.rule("public", "products");
    assert_eq!(products, Some(&TableRule::Replicated));
}

/// Every option that the default file shows as a comment has the default that the comment says.
#[test]
fn the_default_file_tells_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.yaml");
    let text = fs::read_to_string(path).unwrap();
    let settings: [&str; 24] = [
        "auth_query_cache: 10s",
        "per_user: false",
        "queue_timeout: 30s",
        "max_queue: 10000",
        "idle_timeout: 10m",
        "max_lifetime: 1h",
        "max_clients: 10000",
        "max_clients_per_user: off",
        "max_clients_per_database: off",
        "reserved_clients: 0",
        "max_message: 1GiB",
        "max_startup: 10000B",
        "query_memory: 64MiB",
        "intermediate: 4GiB",
        "query_parse: 1MiB",
        "prepared_statements_per_server: 500",
        "prepared_statements_per_client: 10000",
        "plan_cache_entries: 10000",
        "login: 60s",
        "connect: 5s",
        "idle_client: off",
        "shutdown: 60s",
        "probe_interval: 500ms",
        "probe_timeout: 2s",
    ];
    let mut spoken = text.clone();
    for setting in settings {
        assert!(text.contains(&format!("# {setting}")), "{setting}");
        spoken = spoken.replace(&format!("# {setting}"), setting);
    }
    assert_eq!(parse(&spoken), parse(&text));
}

#[test]
fn the_file_of_the_design_is_understood() {
    let config = parse(&fs::read_to_string("src/config/testdata/design.yaml").unwrap());
    assert_eq!(config.tls.mode, TlsMode::Prefer);
    assert_eq!(config.tls.cert, Some("server.crt".into()));
    let user = &config.auth.users["shop"];
    let Some(Password::Plain(password)) = &user.password else {
        panic!("{user:?}");
    };
    assert_eq!(password.expose(), "open sesame: #1");
    let shop = &config.databases["shop"];
    assert_eq!(shop.zone.as_deref(), Some("us-east-1"));
    assert_eq!(shop.backend.tls.mode, BackendTlsMode::Prefer);
    let far = &shop.shards[0].servers[2];
    assert_eq!(far.zone.as_deref(), Some("eu-west-1"));
    assert_eq!(far.hint, Some(RoleHint::Secondary));
    assert_eq!(shop.shards[1].servers[0].hint, None);
    assert_eq!(shop.shards[0].slots, [0..=8191]);
    assert_eq!(shop.shards[1].slots, [8192..=16383]);
    assert_eq!(shop.max_staleness, Duration::from_secs(10));
    assert_eq!(
        shop.tables.named["regions"],
        TableRule::Sharded {
            key: vec!["code".to_owned()],
            method: Method::List(vec![
                (0, vec!["eu".to_owned(), "uk".to_owned()]),
                (1, vec!["us".to_owned()]),
            ]),
        }
    );
    let Some(TableRule::Sharded { key, method }) = shop.tables.named.get("readings") else {
        panic!("{:?}", shop.tables);
    };
    let day = Some("2026-01-01".to_owned());
    let part = |shard, from, to| RangePart { shard, from, to };
    let parts = vec![part(0, None, day.clone()), part(1, day, None)];
    assert_eq!(key, &["at"]);
    assert_eq!(method, &Method::Range(parts));
    assert_eq!(shop.tables.named["settings"], TableRule::Home { shard: 0 });
    assert!(shop.tables.wildcard.is_some());
}

#[test]
fn a_short_file_has_the_defaults_of_production() {
    let config = parse(&shop(SHARDS));
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.metrics, None);
    assert_eq!(config.tls, ClientTls::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.log, Log::default());
    let shop = &config.databases["shop"];
    assert_eq!(shop.backend.database, "shop");
    assert_eq!(shop.pool, Pool::default());
    assert_eq!(shop.read_preference, ReadPreference::Nearest);
    assert_eq!(shop.consistency, Consistency::Session);
    assert_eq!(shop.tables, Tables::default());
}

#[test]
fn listeners_are_addresses_and_sockets() {
    let listen = |value: &str| parse(&format!("listen: {value}\n{}", shop(SHARDS))).listen;
    let unix = |path: &str| ListenAddress::Unix(path.into());
    assert_eq!(
        listen("/run/shardwire"),
        [unix("/run/shardwire/.s.PGSQL.6432")]
    );
    assert_eq!(
        listen("[ \"[::1]:7000\", /tmp/x:5433 ]"),
        [
            ListenAddress::Tcp("[::1]:7000".parse().unwrap()),
            unix("/tmp/x/.s.PGSQL.5433"),
        ]
    );
}

#[test]
fn variables_stand_in_any_value_and_only_there() {
    let config = parse(&shop(
        "    shards: [{ name: s0, primary: \"db-${PORT}:${PORT}\" }]\n    zone: a$$b$c$${PORT}",
    ));
    let shop = &config.databases["shop"];
    assert_eq!(
        shop.shards[0].servers[0].address.to_string(),
        "db-5433:5433"
    );
    assert_eq!(shop.zone.as_deref(), Some("a$b$c${PORT}"));
}

#[test]
fn a_verifier_is_not_a_password() {
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let text = shop(SHARDS).replace(
        "{ method: trust }",
        &format!("{{ users: {{ a: {{ password: {verifier} }} }} }}"),
    );
    let users = parse(&text).auth.users;
    let password = Some(Password::Verifier(Secret::new(verifier)));
    assert_eq!(users["a"].password, password);
}

#[test]
fn aliases_stand_for_what_they_name() {
    let config = parse(&shop(&format!(
        "{SHARDS}    tables: {{ users: &rule {{ shard_key: id }}, orders: *rule }}"
    )));
    let tables = &config.databases["shop"].tables.named;
    assert_eq!(tables["users"], tables["orders"]);
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{}", level - 1);
        let list = vec![below; 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{list}]\n");
    }
    let problems = Config::parse(&bomb, &env).unwrap_err();
    assert_eq!(problems.list[0].message, "the file holds too many values");
    let deep = format!("listen: {}", "[".repeat(5000));
    let problems = Config::parse(&deep, &env).unwrap_err();
    assert_eq!(problems.list.len(), 1, "{problems}");
}

#[test]
fn secrets_never_print() {
    let text = format!(
        "auth: {{ users: {{ a: {{ password: hush-hush }} }} }}\ndatabases:\n  shop:\n    \
         backend: {{ user: shop, password: \"${{SHOP_PASSWORD}}\" }}\n{SHARDS}"
    );
    let config = parse(&text);
    let printed = format!("{config:?} {}", Secret::new("hush-hush"));
    assert!(printed.contains("***"));
    assert!(!printed.contains("hush") && !printed.contains("sesame"));
    // Nor does a secret that a typing error put into another place.
    let text = text.replace("tls: off", "") + "log: { level: \"${SHOP_PASSWORD}\" }\n";
    let problems = Config::parse(&text, &env).unwrap_err().to_string();
    assert!(problems.contains("${SHOP_PASSWORD}"), "{problems}");
    assert!(!problems.contains("sesame"), "{problems}");
}

#[test]
fn files_are_found_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    let text = format!("tls: {{ cert: a.crt, key: a.key }}\n{}", shop(SHARDS));
    fs::write(&path, &text).unwrap();
    let problems = Config::load(&path, &env).unwrap_err();
    assert_eq!(problems.list.len(), 2, "{problems}");
    let shown = problems.to_string();
    let start = format!(
        "{}:1:14: tls.cert: could not read \"a.crt\": ",
        path.display()
    );
    assert!(shown.starts_with(&start), "{shown}");
    fs::write(directory.path().join("a.crt"), "").unwrap();
    fs::write(directory.path().join("a.key"), "").unwrap();
    let config = Config::load(&path, &env).unwrap();
    assert_eq!(config.tls.key, Some(directory.path().join("a.key")));
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.yaml");
    let problems = Config::load(&path, &env).unwrap_err().to_string();
    let start = format!("{}: could not read the file: ", path.display());
    assert!(problems.starts_with(&start), "{problems}");
    fs::write(&path, b"listen: x\nlog: \xff\n").unwrap();
    let problems = Config::load(&path, &env).unwrap_err().to_string();
    assert!(problems.contains("not UTF-8, see line 2"), "{problems}");
}

#[test]
fn slots_are_shared_out_evenly_or_as_told() {
    for count in [1_usize, 2, 3, 7, 100, 1000] {
        let shards: Vec<String> = (0..count)
            .map(|index| format!("{{ name: s{index}, primary: h{index} }}"))
            .collect();
        let config = parse(&shop(&format!("    shards: [{}]", shards.join(", "))));
        let mut next = 0;
        for shard in &config.databases["shop"].shards {
            let [run] = shard.slots.as_slice() else {
                panic!("{shard:?}");
            };
            assert_eq!(*run.start(), next);
            let even = usize::from(SLOTS) / count;
            assert!((even..=even + 1).contains(&run.len()), "{run:?}");
            next = run.end() + 1;
        }
        assert_eq!(next, SLOTS);
    }
    let config = parse(&shop(
        "    shards:\n    - { name: a, primary: a, slots: [0-99, 200-16383] }\n    \
         - { name: b, primary: b, slots: [100-149, 150, 151-199] }\n    \
         - { name: c, primary: c, slots: [] }",
    ));
    let slots: Vec<_> = config.databases["shop"]
        .shards
        .iter()
        .map(|shard| shard.slots.clone())
        .collect();
    assert_eq!(slots, [vec![0..=99, 200..=16383], vec![100..=199], vec![]]);
}

#[test]
fn every_value_has_one_word() {
    fn check<T: Word + std::fmt::Debug>() {
        for (word, value) in T::WORDS {
            assert_eq!(value.word(), *word);
            assert_eq!(T::from_word(word), Some(*value));
        }
        assert_eq!(T::from_word(""), None);
    }
    check::<AuthMethod>();
    check::<TlsMode>();
    check::<BackendTlsMode>();
    check::<PoolMode>();
    check::<ReadPreference>();
    check::<Consistency>();
    check::<HashKind>();
    check::<LogFormat>();
}

/// Files and what is in force with them; `REWRITE=1` writes the file anew.
#[test]
fn settings_read_as_recorded() {
    datadriven::walk("src/config/testdata/settings.test", |file| {
        file.run(|case| {
            let path = match case.directive.as_str() {
                "design" => "src/config/testdata/design.yaml",
                _ => "proxy.yaml",
            };
            let text = fs::read_to_string(path).unwrap();
            let settings = parse(&text).settings();
            let line = |setting: &Setting| format!("{} = {}\n", setting.path, setting.value);
            settings.iter().map(line).collect::<String>()
        });
    });
}

/// What is shown of the bounds is what would bring them back.
#[test]
fn settings_are_shown_as_they_are_written() {
    let config = parse(include_str!("../../proxy.yaml"));
    let settings = config.settings();
    let mut text = shop(SHARDS);
    for section in ["limits", "timeouts", "log"] {
        text += &format!("{section}:\n");
        for setting in &settings {
            if let Some(key) = setting.path.strip_prefix(&format!("{section}.")) {
                text += &format!("  {key}: {}\n", setting.value);
            }
        }
    }
    let again = parse(&text);
    assert_eq!(again.limits, config.limits);
    assert_eq!(again.timeouts, config.timeouts);
    assert_eq!(again.log, config.log);
}

proptest! {
    #[test]
    fn durations_and_sizes_read_back(number in 1_u64..=365 * 86_400_000_000, bytes in any::<u64>()) {
        let duration = Duration::from_micros(number);
        prop_assert_eq!(parse_duration(&value::format_duration(duration)), Some(duration));
        prop_assert_eq!(value::size(&value::format_size(bytes)), Ok(bytes));
    }

    #[test]
    fn addresses_read_back(host in "[a-z][a-z0-9-]{0,9}(\\.[a-z]{1,3})?", ip in any::<u128>(), port in 1_u16..) {
        let text = format!("{host}:{port}");
        prop_assert_eq!(value::server_address(&text).unwrap().to_string(), text);
        let text = format!("[{}]:{port}", std::net::Ipv6Addr::from(ip));
        prop_assert_eq!(value::server_address(&text).unwrap().to_string(), text);
        let text = format!("/run/{host}:{port}");
        prop_assert_eq!(value::server_address(&text).unwrap().to_string(), text);
    }

    #[test]
    fn no_text_panics(text in "\\PC*|[ -~\n\t]{0,200}") {
        let _ = Config::parse(&text, &env);
    }

    #[test]
    fn no_yaml_panics(text in "([a-c\"'$@`%!&*#?,:|>~\\[\\]{}\n. -]|: |\n  |\n- |---|\\.\\.\\.|&a |\\*a|<<|![a-z]*){0,40}") {
        let _ = Config::parse(&text, &env);
    }

    /// The default file with a piece replaced: close to what typing errors make.
    #[test]
    fn no_typing_error_panics(at in 0.0..1.0_f64, length in 0_usize..40, put in "[ -~\n]{0,8}") {
        let text = include_str!("../../proxy.yaml");
        let mut characters: Vec<char> = text.chars().collect();
        let start = (at * characters.len() as f64) as usize;
        let end = (start + length).min(characters.len());
        characters.splice(start..end, put.chars());
        let text: String = characters.into_iter().collect();
        if let Err(problems) = Config::parse(&text, &env) {
            prop_assert!(!problems.list.is_empty());
            prop_assert!(problems.list.iter().all(|problem| problem.line > 0 && problem.column > 0));
        }
    }

    /// Everything of a known key's value is either taken or refused.
    #[test]
    fn no_value_panics(value in "\\PC{0,30}", key in 0_usize..8) {
        let keys = ["queue_timeout", "max_size", "mode", "idle_timeout"];
        let quoted = format!("{value:?}");
        let text = match keys.get(key) {
            Some(key) => shop(&format!("{SHARDS}    pool: {{ {key}: {quoted} }}")),
            None if key == 4 => shop(&format!("    shards: [{{ name: s0, primary: {quoted} }}]")),
            None if key == 5 => format!("listen: {quoted}\n{}", shop(SHARDS)),
            None if key == 6 => shop(&format!("{SHARDS}    tables: {{ {quoted}: {{ shard: s0 }} }}")),
            None => shop(&format!("    shards: [{{ name: s, primary: h, slots: [{quoted}] }}]")),
        };
        let _ = Config::parse(&text, &env);
    }
}
