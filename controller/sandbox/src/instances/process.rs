//! An executable with nothing but the hidden subcommands that instances are made of. The product has them in the
//! controller; this one lets the crate's tests run instances without it.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((name, rest)) if name == "sandbox-instance" => sandbox::instances::supervise(rest),
        Some((name, rest)) if name == "sandbox-agent" => sandbox::standin::main(rest),
        Some(_) | None => ExitCode::from(2),
    }
}
