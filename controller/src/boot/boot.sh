# Prepares the machine and starts the ClearML agent behind its gate.
# Its phases go to the file `phase`; a failure ends the machine, never abandons it.
umask 077
export PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export DEBIAN_FRONTEND=noninteractive

ROOT="${CLEARML_AUTOSCALER_ROOT:-}"
OWN="$ROOT/var/lib/clearml-autoscaler"
BOOT="$OWN/boot"
GATE="$ROOT/run/clearml-autoscaler/agent-0"
UNIT=clearml-autoscaler-agent.service
CURRENT=script
DONE=

mkdir -p "$BOOT" "$GATE"
chmod 700 "$OWN" "$BOOT" "$GATE"
# Without a sidecar the console is the only place where phases can be seen.
if [ -n "$SELF_IDLE_LIMIT" ]; then exec 3>&2; else exec 3>/dev/null; fi
exec </dev/null >>"$BOOT/log" 2>&1
cd "$BOOT" || exit 1

# A home of its own below another root: what runs there must not touch the user's.
if [ -n "$ROOT" ]; then
    HOME="$ROOT/root"
elif [ -z "${HOME:-}" ]; then
    HOME="$(getent passwd "$(id -u)" | cut -d: -f6)"
fi
export HOME="${HOME:-/root}"
mkdir -p "$HOME"

say() {
    printf 'clearml-autoscaler: %s\n' "$1"
    printf 'clearml-autoscaler: %s\n' "$1" >&3
}

phase() {
    CURRENT="$1"
    say "== $(date -u +%H:%M:%S) $1"
    printf '%s\n' "$1" >>"$OWN/phase"
}

on_exit() {
    [ -z "$DONE" ] || exit 0
    printf 'failed %s\n' "$CURRENT" >>"$OWN/phase"
    say "boot failed in phase $CURRENT: powering off"
    # Long enough for the log's end to be reported.
    sleep "$LINGER"
    # Below another root, a machine whose files are gone is gone: `shutdown` would be the host's.
    [ -d "${ROOT:-/}" ] && shutdown -P now
    exit 1
}
trap on_exit EXIT

# retry TIMES COMMAND...
retry() {
    local left="$1"
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep "$((5 + RANDOM % 6))"
    done
}

# install APT_PACKAGES YUM_PACKAGES, each separated by blanks. At boot the package manager is often in use.
install() {
    local -a apt yum
    read -r -a apt <<<"$1"
    read -r -a yum <<<"$2"
    if command -v apt-get >/dev/null; then
        retry 3 timeout 600 apt-get -o DPkg::Lock::Timeout=300 update
        retry 5 timeout 1200 apt-get -o DPkg::Lock::Timeout=300 install -y "${apt[@]}"
    elif command -v dnf >/dev/null; then
        retry 5 timeout 1200 dnf install -y "${yum[@]}"
    elif command -v yum >/dev/null; then
        retry 5 timeout 1200 yum install -y "${yum[@]}"
    else
        echo "no package manager that is known here"
        return 1
    fi
}

# The Python that has the agent: the one prepared for us, or the system's.
find_agent() {
    local candidate
    for candidate in "$OWN/venv/bin/python" "$(command -v python3)"; do
        if [ -x "$candidate" ] && timeout 60 "$candidate" -c 'import clearml_agent' >/dev/null 2>&1; then
            PYTHON="$candidate"
            return 0
        fi
    done
    return 1
}

imds() {
    local base="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}" token
    base="${base%/}"
    token="$(curl -fsS --noproxy '*' -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$base/latest/api/token")" &&
        curl -fsS --noproxy '*' -m 5 -H "X-aws-ec2-metadata-token: $token" "$base/latest/meta-data/$1"
}

learn_instance_id() {
    INSTANCE_ID="$(imds instance-id)" && [ -n "$INSTANCE_ID" ]
}

packages() {
    local apt='' yum=''
    if ! find_agent; then
        apt+=' python3 python3-pip python3-venv'
        yum+=' python3 python3-pip'
    fi
    command -v git >/dev/null || { apt+=' git' yum+=' git'; }
    if [ -z "$DOCKER_IMAGE" ] && ! command -v gcc >/dev/null; then
        apt+=' build-essential python3-dev'
        yum+=' gcc python3-devel'
    fi
    if [ -z "$INSTANCE_ID" ] && ! command -v curl >/dev/null; then
        apt+=' curl' yum+=' curl'
    fi
    [ -n "$apt" ] || return 0
    phase packages
    # What is really indispensable shows in the phases that use it.
    install "$apt" "$yum" || echo "not all packages could be installed"
}

virtual_environment() {
    phase virtualenv
    rm -rf "$OWN/venv"
    python3 -m venv "$OWN/venv" && return 0
    rm -rf "$OWN/venv"
    python3 -m virtualenv "$OWN/venv" && return 0
    rm -rf "$OWN/venv"
    retry 3 timeout 600 python3 -m pip install virtualenv && python3 -m virtualenv "$OWN/venv"
}

agent() {
    phase agent
    # An old pip does not know today's wheels; a failure shows at the next line.
    timeout 600 "$OWN/venv/bin/python" -m pip install --upgrade pip
    retry 5 timeout 1200 "$OWN/venv/bin/python" -m pip install "$AGENT_PACKAGE" && find_agent
}

docker_engine() {
    command -v docker >/dev/null && return 0
    phase docker
    install docker.io docker
    command -v systemctl >/dev/null && systemctl enable --now docker
    # Without it each task that is pulled would fail: better no instance than that.
    command -v docker >/dev/null
}

configuration() {
    phase configuration
    local file="$HOME/clearml.conf" mark='# --- clearml-autoscaler ---'
    # The image's own settings stay; what follows them overrides them.
    { [ ! -f "$file" ] || sed "/^$mark\$/,\$d" "$file"; } >"$file.part" &&
        printf '\n%s\n' "$mark" >>"$file.part" &&
        cat "$BOOT/clearml.conf" >>"$file.part" &&
        mv -f "$file.part" "$file"
}

environment() {
    # The configuration file decides, not what the image's environment says.
    unset CLEARML_API_HOST CLEARML_WEB_HOST CLEARML_FILES_HOST CLEARML_API_ACCESS_KEY CLEARML_API_SECRET_KEY \
        CLEARML_AUTH_TOKEN CLEARML_CONFIG_FILE CLEARML_WORKER_NAME TRAINS_API_HOST TRAINS_WEB_HOST \
        TRAINS_FILES_HOST TRAINS_API_ACCESS_KEY TRAINS_API_SECRET_KEY TRAINS_CONFIG_FILE TRAINS_WORKER_ID \
        TRAINS_WORKER_NAME NOTIFY_SOCKET INVOCATION_ID JOURNAL_STREAM LISTEN_FDS LISTEN_PID DEBIAN_FRONTEND
    # Where no locale is set, older Pythons take every text for ASCII.
    export LANG="${LANG:-C.UTF-8}"
    export DYNAMIC_INSTANCE_ID="$INSTANCE_ID"
    export CLEARML_WORKER_ID="$WORKER_PREFIX:$INSTANCE_ID"
    [ -z "$AUTH_TOKEN" ] || export CLEARML_AUTH_TOKEN="$AUTH_TOKEN"
    # Beside those that the image gives its workers.
    [ -z "$WORKER_TAG" ] || export CLEARML_WORKER_TAGS="${CLEARML_WORKER_TAGS:+$CLEARML_WORKER_TAGS }$WORKER_TAG"
    if [ -n "$CPU_ONLY" ]; then
        export NVIDIA_VISIBLE_DEVICES=none CLEARML_DOCKER_SKIP_GPUS_FLAG=1
    fi
    if [ "$PYTHON" = "$OWN/venv/bin/python" ]; then
        export VIRTUAL_ENV="$OWN/venv" PATH="$OWN/venv/bin:$PATH"
    fi
    export -p >"$BOOT/environment"
}

extra() {
    [ -n "$SKIP_BASHRC" ] && [ ! -s "$BOOT/extra.sh" ] && return 0
    phase extra
    bash "$BOOT/prepare.sh" "$BOOT/environment" "$SKIP_BASHRC" "$BOOT/extra.sh" 3>&-
}

# KillSignal: told to end, a busy agent would note its task as aborted by its user. OOMPolicy: a task that the
# kernel kills for its memory is no reason to end the agent.
start_unit() {
    mkdir -p "$ROOT/etc/systemd/system" || return 1
    cat >"$ROOT/etc/systemd/system/$UNIT" <<TEXT || return 1
[Unit]
Description=ClearML agent behind its gate
Wants=network-online.target
After=network-online.target docker.service

[Service]
ExecStart=/bin/bash $BOOT/agent.sh run
ExecStopPost=/bin/bash $BOOT/agent.sh ended
KillSignal=SIGKILL
OOMPolicy=continue
TasksMax=infinity
Restart=no

[Install]
WantedBy=multi-user.target
TEXT
    chmod 644 "$ROOT/etc/systemd/system/$UNIT"
    systemctl daemon-reload && systemctl enable "$UNIT" >/dev/null 2>&1
    systemctl restart --no-block "$UNIT"
}

start() {
    phase start
    rm -f "$GATE/pid"
    local -a words=("$PYTHON" "$BOOT/agent_shim.py" --gate-dir "$GATE")
    if [ -n "$SELF_IDLE_LIMIT" ]; then
        words+=(--self-idle-limit "$SELF_IDLE_LIMIT" --power-off 'shutdown -P now')
    fi
    words+=(-- --config-file "$HOME/clearml.conf" daemon --queue "$QUEUE" --foreground)
    [ -z "$DOCKER_IMAGE" ] || words+=(--docker "$DOCKER_IMAGE")
    printf '%s\0' "${words[@]}" >"$BOOT/agent.words"
    if [ -d "$ROOT/run/systemd/system" ]; then
        start_unit || return 1
    else
        setsid bash "$BOOT/agent.sh" run </dev/null >>"$OWN/agent.log" 2>&1 3>&- &
    fi
    local left="$READY_WAIT_TENTHS" pid
    while [ "$left" -gt 0 ]; do
        pid="$(cat "$GATE/pid" 2>/dev/null)"
        [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && return 0
        sleep 0.1
        left=$((left - 1))
    done
    echo "the agent did not come up"
    return 1
}

packages
[ -n "$INSTANCE_ID" ] || retry 10 learn_instance_id || exit 1
find_agent || { virtual_environment && agent; } || exit 1
[ -z "$DOCKER_IMAGE" ] || docker_engine || exit 1
configuration || exit 1
environment || exit 1
extra || exit 1
start || exit 1
if [ -n "$SELF_IDLE_LIMIT" ]; then
    shutdown -c
fi
phase ready
DONE=1
