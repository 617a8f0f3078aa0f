# prepare.sh ENVIRONMENT SKIP_BASHRC EXTRA: runs ~/.bashrc and the extra script in one shell, as if they stood
# in the boot script itself, and keeps what they export. An `exit` in them ends only this shell: 0 is success,
# anything else fails the boot; the status of the last command is of no account.
__autoscaler_environment="$1"
__autoscaler_extra="$3"
__autoscaler_stage=bashrc
__autoscaler_end() {
    __autoscaler_status=$?
    trap - EXIT
    case "$__autoscaler_stage" in
        bashrc) echo "$HOME/.bashrc ended the shell" && exit 1 ;;
        done) exit 0 ;;
    esac
    __autoscaler_keep
    exit "$__autoscaler_status"
}
__autoscaler_keep() {
    (umask 077 && export -p >"$__autoscaler_environment.part") &&
        mv -f "$__autoscaler_environment.part" "$__autoscaler_environment"
}
trap __autoscaler_end EXIT
. "$__autoscaler_environment"
umask 022
cd "$HOME" || exit 1
if [ -z "$2" ] && [ -f "$HOME/.bashrc" ]; then
    set --
    . "$HOME/.bashrc"
fi
set --
__autoscaler_stage=extra
if [ -s "$__autoscaler_extra" ]; then
    . "$__autoscaler_extra"
fi
__autoscaler_stage=done
__autoscaler_keep
exit 0
