//! Reads flags and configuration, starts the runtime, maps failures to exit codes.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shardwire::admin::{check, explain};
use shardwire::config::{Config, Log, LogFormat};
use shardwire::demo;
use shardwire::proxy;

/// Many short-lived small buffers: mimalloc is quicker at them and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A stateless PostgreSQL wire-compatible sharding proxy.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration file.
    #[arg(long, short, global = true, default_value = "proxy.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a throw-away sharded, replicated cluster on this machine with the proxy in front.
    Demo,
    /// Checks the configuration and every server it names, and reports everything wrong at once.
    Check,
    /// Prints where a statement would run, and how.
    Explain {
        /// The statement, or several with semicolons between them.
        sql: String,
        /// The database of the file; may be left out where there is one.
        #[arg(long, short)]
        database: Option<String>,
        /// Asks no server: the tables are those of the file, and types are guessed.
        #[arg(long)]
        offline: bool,
    },
}

/// Exit code when the configuration is wrong, as `sysexits.h` has it.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shardwire: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(arguments));
    // Sessions that are left have had their time.
    runtime.shutdown_background();
    code
}

async fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Some(Command::Demo) => {
            start_log(&Log::default());
            outcome(demo::run(proxy::serve).await)
        }
        Some(Command::Check) => {
            let env = |name: &str| std::env::var(name).ok();
            let outcome = check::command(&arguments.config, &env).await;
            print!("{}", outcome.text);
            ExitCode::from(outcome.code)
        }
        Some(Command::Explain {
            sql,
            database,
            offline,
        }) => {
            let asked = explain::Asked {
                sql,
                database,
                offline,
            };
            let env = |name: &str| std::env::var(name).ok();
            let outcome = explain::command(&arguments.config, &env, &asked).await;
            print!("{}", outcome.text);
            ExitCode::from(outcome.code)
        }
        None => serve(arguments.config).await,
    }
}

async fn serve(path: PathBuf) -> ExitCode {
    match Config::load(&path, &|name| std::env::var(name).ok()) {
        Ok(config) => {
            start_log(&config.log);
            outcome(proxy::serve(config, Some(path)).await)
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

fn outcome<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shardwire: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error; `RUST_LOG` overrides the configured level.
fn start_log(log: &Log) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(&log.level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
