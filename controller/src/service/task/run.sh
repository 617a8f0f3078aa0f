# Fetches the autoscaler from ClearML's file server, makes sure that it is what was uploaded, and becomes it.
# FILES is a JSON list, ARCH the machine that the controller was built for, KEY names this set of files.
umask 077

say() {
    printf 'clearml-autoscaler: %s\n' "$*"
}

fail() {
    say "$*"
    exit 1
}

case "$(uname -s)-$(uname -m)" in
    "Linux-$ARCH") ;;
    *) fail "the controller was built for Linux on $ARCH, and this is $(uname -s) on $(uname -m): use another agent, or upload from such a machine" ;;
esac
PYTHON="$(command -v python3 || command -v python)" || fail "there is no python3, which an agent's image has"
OWN="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/clearml-autoscaler/$KEY"
mkdir -p "$OWN" || fail "cannot make $OWN"

"$PYTHON" - "$OWN" "$FILES" <<'PYTHON' || exit 1
import base64
import hashlib
import json
import os
import random
import ssl
import sys
import time
import urllib.error
import urllib.request

ATTEMPTS = 5
PATIENCE = 60
OWN = sys.argv[1]
FILES = json.loads(sys.argv[2])


def say(text):
    print("clearml-autoscaler: " + text, flush=True)


def configuration():
    name = os.environ.get("CLEARML_CONFIG_FILE", "")
    if not name:
        return {}
    try:
        with open(os.path.expanduser(name), encoding="utf-8") as file:
            return json.load(file).get("api") or {}
    except (OSError, ValueError) as error:
        say("{} (CLEARML_CONFIG_FILE) is not read: {}".format(name, error))
        return {}


API = configuration()


def setting(variable, *keys):
    value = os.environ.get(variable, "").strip()
    found = API
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return value or (str(found).strip() if found is not None else "")


def trust():
    verify = setting("CLEARML_API_HOST_VERIFY_CERT", "verify_certificate")
    if verify.lower() in ("n", "no", "f", "false", "off", "0"):
        return ssl._create_unverified_context()
    return ssl.create_default_context(cafile=verify if os.path.isfile(verify) else None)


class Stay(urllib.request.HTTPRedirectHandler):
    # A redirect would take the token along.
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=trust()))


def attempts(what, work):
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except urllib.error.HTTPError as error:
            failure, final = "HTTP {}".format(error.code), 300 <= error.code < 500 and error.code not in (408, 429)
        except (OSError, ValueError, KeyError) as error:
            failure, final = str(error) or type(error).__name__, False
        if final or attempt + 1 == ATTEMPTS:
            raise RuntimeError("{}: {}".format(what, failure))
        say("{}: {}; trying again".format(what, failure))
        time.sleep(2 ** attempt + random.random())


def token():
    given = os.environ.get("CLEARML_AUTH_TOKEN", "").strip()
    if given:
        return given
    server = setting("CLEARML_API_HOST", "api_server").rstrip("/")
    access = setting("CLEARML_API_ACCESS_KEY", "credentials", "access_key")
    secret = setting("CLEARML_API_SECRET_KEY", "credentials", "secret_key")
    if not (server and access and secret):
        raise RuntimeError("the agent's configuration has no API server or no credentials")
    keys = base64.b64encode("{}:{}".format(access, secret).encode()).decode()
    headers = {"Authorization": "Basic " + keys, "Content-Type": "application/json"}

    def login():
        request = urllib.request.Request(server + "/auth.login", data=b"{}", headers=headers)
        with OPENER.open(request, timeout=PATIENCE) as reply:
            return json.load(reply)["data"]["token"]

    return attempts("log in to " + server, login)


def digest(path):
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            hashed.update(block)
    return hashed.hexdigest()


def fetch(url, target, bearer):
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + bearer})
    with OPENER.open(request, timeout=PATIENCE) as reply, open(target, "wb") as file:
        for block in iter(lambda: reply.read(1 << 20), b""):
            file.write(block)


def obtain(file, servers, bearer):
    target = os.path.join(OWN, file["name"])
    if os.path.exists(target) and digest(target) == file["sha256"]:
        return
    failures = []
    for url in dict.fromkeys([server + "/" + file["path"] for server in servers] + [file["url"]]):
        part = target + ".part"
        try:
            attempts("fetch " + url, lambda: fetch(url, part, bearer()))
        except RuntimeError as error:
            failures.append(str(error))
            continue
        found = digest(part)
        if found == file["sha256"]:
            os.chmod(part, 0o700)
            os.replace(part, target)
            say("fetched {} ({} bytes), SHA-256 as uploaded".format(file["name"], file["size"]))
            return
        os.remove(part)
        failures.append("{} has SHA-256 {}, not {}: it is not what was uploaded".format(url, found, file["sha256"]))
    raise RuntimeError("; ".join(failures) + "; upload it again with `controller template` or `controller --remote`")


def main():
    known = []

    def bearer():
        if not known:
            known.append(token())
        return known[0]

    server = setting("CLEARML_FILES_HOST", "files_server").rstrip("/")
    servers = [server] if server.startswith(("http://", "https://")) else []
    for file in FILES:
        obtain(file, servers, bearer)


try:
    main()
except RuntimeError as error:
    say(str(error))
    sys.exit(1)
PYTHON

"$OWN/controller" --version || fail "the controller does not start here (see above): an image with a newer C library may be needed"
