// The two doors between the handoff's state machines and whatever carries their messages (gRPC in
// the server, a direct call in tests). Nothing here blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/handoff/messages.h"

namespace tessera {

/// One ordered two-way stream between a prefill worker and a decode leader; never reused.
using LinkId = uint64_t;

/// Prefill's way to decode leaders; implemented by the carrier. Any thread.
class DecodePort {
 public:
  /// Called by the carrier, in order per link, from any thread; must not block.
  class Listener {
   public:
    Listener() = default;
    virtual ~Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    virtual void on_link_message(LinkId link, DecodeMessage message) = 0;
    /// Last call for `link`; follows close() too.
    virtual void on_link_closed(LinkId link, const Status& status) = 0;
  };

  DecodePort() = default;
  virtual ~DecodePort() = default;
  DecodePort(const DecodePort&) = delete;
  DecodePort& operator=(const DecodePort&) = delete;

  /// Starts connecting to the leader at `address` ("host:port"); messages may be sent at once.
  [[nodiscard]] virtual LinkId open(const std::string& address) = 0;
  /// Queued, bounded: a link whose queue overflows is closed. Ignored on a closed link.
  virtual void send(LinkId link, PrefillMessage message) = 0;
  virtual void close(LinkId link) = 0;
};

/// Decode's end of one link, given to the decode side by the carrier. Any thread.
class PrefillLink {
 public:
  PrefillLink() = default;
  virtual ~PrefillLink() = default;
  PrefillLink(const PrefillLink&) = delete;
  PrefillLink& operator=(const PrefillLink&) = delete;

  /// Queued, bounded: a link whose queue overflows is closed.
  virtual void send(DecodeMessage message) = 0;
  /// Ends the link with `status`. PrefillDoor::on_link_closed() follows.
  virtual void close(const Status& status) = 0;
};

/// Where the carrier delivers what arrives at a decode leader. Any thread; does not block.
class PrefillDoor {
 public:
  PrefillDoor() = default;
  virtual ~PrefillDoor() = default;
  PrefillDoor(const PrefillDoor&) = delete;
  PrefillDoor& operator=(const PrefillDoor&) = delete;

  /// `link` is shared with the carrier's call.
  [[nodiscard]] virtual LinkId on_link_opened(std::shared_ptr<PrefillLink> link) = 0;
  /// In order per link. Errors (RESOURCE_EXHAUSTED, INVALID_ARGUMENT): the carrier ends the link.
  [[nodiscard]] virtual Status on_link_message(LinkId link, PrefillMessage message) = 0;
  virtual void on_link_closed(LinkId link) = 0;
};

}  // namespace tessera
