// Bounds of one service.
#pragma once

#include <cstddef>

#include "server/rpc/outbox.h"

namespace tessera::rpc {

struct ServiceLimits {
  size_t max_open_calls = 16384;    ///< over all connections; links are counted apart
  size_t max_queued_events = 1024;  ///< of one stream whose reader is slow
  OutboxLimits link_outbox;         ///< what waits to be sent on one link
};

}  // namespace tessera::rpc
