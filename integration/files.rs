//! README.md and the files of docker/ against each other and the program, without an engine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use saphyr_parser::Parser;
use shardwire::config::Config;
use shardwire::config::Database;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// docker/proxy.yaml with the environment that compose.yaml gives the proxy.
fn configuration() -> Config {
    let compose = read("compose.yaml");
    let (_, proxy) = compose.split_once("\n  proxy:\n").unwrap();
    let (_, environment) = proxy.split_once("\n    environment:\n").unwrap();
    let names: Vec<&str> = environment
        .lines()
        .map_while(|line| line.strip_prefix("      "))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    let env = |name: &str| names.contains(&name).then(|| format!("value of {name}"));
    Config::load(&folder().join("proxy.yaml"), &env).unwrap_or_else(|found| panic!("{found}"))
}

fn shop(config: &Config) -> &Database {
    &config.databases["shop"]
}

#[test]
fn every_yaml_file_parses() {
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(&path).unwrap();
            for event in Parser::new_from_str(&text) {
                event.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn the_configuration_of_the_readme_is_one() {
    let readme = include_str!("../README.md");
    let (_, text) = readme.split_once("```yaml\n").unwrap();
    let (text, _) = text.split_once("```\n").unwrap();
    let found = Config::parse(text, &|_| Some("secret".to_owned()));
    found.unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn the_servers_are_services_and_hold_the_slots_they_should() {
    let (config, compose) = (configuration(), read("compose.yaml"));
    for (number, shard) in shop(&config).shards.iter().enumerate() {
        for server in &shard.servers {
            let name = server.address.to_string();
            let (name, port) = name.split_once(':').unwrap();
            assert_eq!(port, "5432");
            assert!(
                compose.contains(&format!("\n  {name}:\n    <<: *server\n")),
                "{name}"
            );
        }
        let (_, primary) = compose
            .split_once(&format!("\n  {}-primary:\n", shard.name))
            .unwrap();
        let (primary, _) = primary.split_once("\n\n").unwrap();
        let [slots] = shard.slots.as_slice() else {
            panic!("{} does not own one run of slots", shard.name);
        };
        let slots = format!("\n      SLOTS: {} AND {}\n", slots.start(), slots.end());
        assert!(primary.contains(&slots), "{primary}");
        let home = format!("\n      HOME_SHARD: \"{}\"\n", number == 0);
        assert!(primary.contains(&home), "{primary}");
    }
}

#[test]
fn tables_and_ports_are_those_of_the_default_file() {
    let default = Config::parse(include_str!("../proxy.yaml"), &|_| None).unwrap();
    let docker = configuration();
    assert_eq!(shop(&docker).tables, shop(&default).tables);
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains("\nEXPOSE 6432 9187\n"));
    assert_eq!(docker.listen[0].to_string(), "0.0.0.0:6432");
    assert_eq!(docker.metrics.unwrap().to_string(), "0.0.0.0:9187");
}
