//! Where things are: addresses that are listened on and reached, and directories.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Advertise;
use super::section::Section;
use super::yaml::quoted;

type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// `listen`.
pub(super) fn listen(hyper: &Section<'_>) -> Option<SocketAddr> {
    let text = hyper.text("listen")?;
    let address = text.parse();
    if address.is_err() {
        let wanted = "must be IP:PORT, such as 0.0.0.0:8790 or [::]:8790";
        hyper.fault("listen", format!("{wanted}, not {}", quoted(&text)));
    }
    address.ok()
}

/// `advertise_address`.
pub(super) fn advertise(hyper: &Section<'_>) -> Option<Advertise> {
    let text = hyper.text("advertise_address")?;
    let address = host_and_port(&text);
    if address.is_none() {
        let wanted = "must be HOST or HOST:PORT that instances can reach, without a scheme";
        // A URL may hold a password.
        let given = if text.contains('@') { String::new() } else { format!(", not {}", quoted(&text)) };
        hyper.fault("advertise_address", format!("{wanted}{given}"));
    }
    address
}

fn host_and_port(text: &str) -> Option<Advertise> {
    let of = |host: &str, port| Advertise { host: host.to_owned(), port };
    let address = if let Ok(host) = text.parse::<Ipv6Addr>() {
        of(&host.to_string(), None)
    } else if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let host = host.parse::<Ipv6Addr>().ok()?;
        of(
            &host.to_string(),
            if port.is_empty() { None } else { Some(port.strip_prefix(':')?.parse().ok()?) },
        )
    } else {
        match text.split_once(':') {
            Some((host, port)) => of(host, Some(port.parse().ok()?)),
            None => of(text, None),
        }
    };
    let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let unspecified = address.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let sound = !address.host.is_empty() && address.host.chars().all(clean) && !unspecified;
    (sound && address.port != Some(0)).then_some(address)
}

/// A server's URL, without a trailing slash.
pub(super) fn server(hyper: &Section<'_>, key: &'static str) -> Option<String> {
    let url = hyper.checked_text(key, |url| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        match host {
            // Keys in a URL would end up in logs.
            Some(host) if host.contains('@') => Err("must not hold a user or a password".to_owned()),
            Some(host) if !host.is_empty() && !url.contains(char::is_whitespace) => Ok(()),
            Some(_) | None => Err("must be a URL, http://HOST:PORT or https://HOST".to_owned()),
        }
    })?;
    Some(url.trim_end_matches('/').to_owned())
}

/// A directory or a file: absolute, below home with `~/`, or beside the configuration.
pub(super) fn directory(
    hyper: &Section<'_>,
    key: &'static str,
    file: &Path,
    env: Env<'_>,
) -> Option<PathBuf> {
    let text = hyper.text(key)?;
    if let Some(rest) = text.strip_prefix("~/") {
        let home = env("HOME").filter(|home| !home.is_empty());
        if home.is_none() {
            hyper.fault(key, "begins with ~/, but HOME is not set");
        }
        return Some(Path::new(&home?).join(rest));
    }
    // Where the controller happens to be started must not matter.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    Some(file.parent().unwrap_or_else(|| Path::new("/")).join(text))
}

/// `state_dir`; else systemd's, else below the user's state directory, else below /var/lib.
pub(super) fn state_dir(hyper: &Section<'_>, file: &Path, prefix: &str, env: Env<'_>) -> PathBuf {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let systemd = || {
        let directories = env("STATE_DIRECTORY")?;
        let first = PathBuf::from(directories.split(':').next().unwrap_or_default());
        first.is_absolute().then_some(first)
    };
    let below = |state: PathBuf| state.join("clearml-autoscaler").join(prefix);
    directory(hyper, "state_dir", file, env)
        .or_else(systemd)
        .or_else(|| absolute("XDG_STATE_HOME").map(below))
        .or_else(|| absolute("HOME").map(|home| below(home.join(".local/state"))))
        .unwrap_or_else(|| Path::new("/var/lib/clearml-autoscaler-controller").join(prefix))
}
