#!/bin/sh
# Gets the Git servers that the tests of this folder talk to, where that is possible; without one its tests are skipped.
have_sshd() { command -v sshd >/dev/null || [ -x /usr/sbin/sshd ]; }
have_http() { [ -x "$(git --exec-path)/git-http-backend" ]; }
have_daemon() { [ -x "$(git --exec-path)/git-daemon" ]; }

if ! { have_sshd && have_http && have_daemon; } && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends git openssh-server openssh-client; } >/dev/null ||
        echo "packages.sh: apt-get failed; the tests that need what is missing are skipped" >&2
fi
have_sshd || echo "packages.sh: there is no sshd here, so the tests over ssh are skipped (Debian: openssh-server)" >&2
have_http || echo "packages.sh: there is no git-http-backend here, so the tests over http are skipped" >&2
have_daemon || echo "packages.sh: there is no git-daemon here, so the tests over git:// are skipped" >&2
exit 0
