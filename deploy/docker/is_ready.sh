#!/bin/bash
# is_ready PORT: ends with 0 when the role whose HTTP port that is says so on /readyz. For health
# checks of Compose; the images have no HTTP client.
exec 3<>"/dev/tcp/127.0.0.1/${1:?usage: is_ready PORT}" || exit 1
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 5 _ status _ <&3 && [[ $status == 200 ]]
