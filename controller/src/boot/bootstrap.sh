# Fetches the sidecar from the controller and starts it; the sidecar does the rest.
# On any failure the machine powers itself off: nothing is abandoned.
umask 077
export PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
shutdown -P "+$MAX_SPIN_UP_MIN"

ROOT="${CLEARML_AUTOSCALER_ROOT:-}"
OWN="$ROOT/var/lib/clearml-autoscaler"

say() {
    printf 'clearml-autoscaler: %s\n' "$*" >&2
}

fail() {
    say "$*: powering off"
    sleep "$LINGER"
    # Below another root, a machine whose files are gone is gone: `shutdown` would be the host's.
    [ -d "${ROOT:-/}" ] && shutdown -P now
    exit 1
}

{ mkdir -p "$OWN" && chmod 700 "$OWN" && cd "$OWN"; } || fail "cannot make $OWN"

case "$(uname -m)" in
    x86_64 | amd64) ARCH=x86_64 HASH="$SHA256_X86_64" ;;
    aarch64 | arm64) ARCH=aarch64 HASH="$SHA256_AARCH64" ;;
    *) fail "no sidecar for $(uname -m)" ;;
esac
[ -n "$HASH" ] || fail "the controller has no sidecar for $ARCH"

matches() {
    printf '%s  %s\n' "$HASH" "$1" | sha256sum -c - >/dev/null 2>&1
}

if ! command -v curl >/dev/null; then
    say "curl is missing: installing it"
    export DEBIAN_FRONTEND=noninteractive
    { timeout 300 apt-get update && timeout 300 apt-get install -y curl; } </dev/null >/dev/null 2>&1 ||
        timeout 300 yum install -y curl </dev/null >/dev/null 2>&1
fi

# The key is pinned, so the certificate's names and issuer are of no account. A proxy has no business here.
fetch() {
    curl --fail --silent --show-error --insecure --pinnedpubkey "$PIN" --noproxy '*' \
        --connect-timeout 10 --max-time 150 --output "$1" "$CONTROLLER/sidecar/$ARCH"
}

attempt=0
until matches sidecar; do
    attempt=$((attempt + 1))
    [ "$attempt" -le "$ATTEMPTS" ] || fail "the sidecar could not be fetched"
    if [ "$attempt" -gt 1 ]; then
        sleep "$((attempt < 8 ? attempt * 2 : 15)).$((RANDOM % 10))"
    fi
    rm -f sidecar.part
    if ! fetch sidecar.part; then
        say "fetch the sidecar: attempt $attempt failed"
    elif ! matches sidecar.part; then
        say "the sidecar that came is not the one that was announced"
    else
        chmod 700 sidecar.part && mv -f sidecar.part sidecar
    fi
done

{ printf '%s\n' "$SIDECAR_JSON" >sidecar.json.part && mv -f sidecar.json.part sidecar.json; } ||
    fail "cannot write sidecar.json"

# KillMode: what the sidecar starts outlives it. Bash in between: where SELinux is enforced, systemd may not
# start a program below /var by itself.
start_unit() {
    mkdir -p "$ROOT/etc/systemd/system" || return 1
    cat >"$ROOT/etc/systemd/system/clearml-autoscaler-sidecar.service" <<UNIT || return 1
[Unit]
Description=ClearML autoscaler's sidecar
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/bin/bash -c 'exec $OWN/sidecar run --config $OWN/sidecar.json'
Restart=always
RestartSec=2
StartLimitInterval=0
KillMode=process
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
UNIT
    chmod 644 "$ROOT/etc/systemd/system/clearml-autoscaler-sidecar.service"
    systemctl daemon-reload && systemctl enable clearml-autoscaler-sidecar.service >/dev/null 2>&1
    systemctl restart --no-block clearml-autoscaler-sidecar.service
}

start_loop() {
    setsid bash -c 'while :; do "$0" run --config "$1"; sleep 2; done' "$OWN/sidecar" "$OWN/sidecar.json" \
        </dev/null >>"$OWN/sidecar.log" 2>&1 &
}

if [ -d "$ROOT/run/systemd/system" ]; then
    start_unit || fail "the sidecar could not be started"
else
    start_loop
fi
say "the sidecar is on its way"
