# The image has the autoscaler.
command -v controller >/dev/null || {
    echo "clearml-autoscaler: the image has no executable \"controller\" in its PATH: name one that has, or make the task again without --image"
    exit 1
}
OWN="$(dirname "$(command -v controller)")"
