#!/bin/bash
# Succeeds when the proxy says that it is ready to serve. The image has no HTTP client but bash.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/${METRICS_PORT:-9187}"
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
