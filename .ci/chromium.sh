#!/bin/sh
# Install the Chromium that the tests of the player need, where that can be done without a question: none is there,
# the system has apt, and we may use it. Otherwise those tests are skipped. Never fails.
set -u
packages_limit=600 # seconds

for name in "${MASKVOLUME_CHROMIUM:-chromium}" chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then
        echo "chromium: $(command -v "$name")"
        exit 0
    fi
done

skip() {
    echo "chromium: $1; the tests of the player will be skipped"
    exit 0
}

command -v apt-get >/dev/null || skip "none is there, and no apt-get to install it by"
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    skip "none is there, and only root may install it (apt install chromium)"
fi

apt() {
    # shellcheck disable=SC2086 # no words where we are root
    $as_root timeout "$packages_limit" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 "$@" </dev/null >/dev/null
}

echo "chromium: installing it by apt-get"
{ apt update && apt install -y --no-install-recommends chromium && command -v chromium; } ||
    skip "it could not be installed, see the lines above"
