# agent.sh run | ended: runs the agent; when it ends, for whatever reason, so does the machine.
HERE="$(cd "$(dirname "$0")" && pwd)"
. "$HERE/environment"

# Below another root, a machine whose files are gone is gone: whatever `shutdown` is found now is the host's.
power_off() {
    [ -d "${CLEARML_AUTOSCALER_ROOT:-/}" ] || exit 1
    local left=60
    until shutdown -P now; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 5
        [ -d "${CLEARML_AUTOSCALER_ROOT:-/}" ] || exit 1
    done
}

case "$1" in
    run)
        umask 022
        cd "${HOME:-/}" || cd /
        words=()
        while IFS= read -r -d '' word; do
            words+=("$word")
        done <"$HERE/agent.words"
        mkdir -p "${words[3]}"
        "${words[@]}"
        printf 'clearml-autoscaler: the agent ended with status %s: powering off\n' "$?"
        power_off
        ;;
    ended)
        # A reboot ends the agent too, and is to remain one.
        [ "$(systemctl is-system-running)" = stopping ] || power_off
        ;;
esac
