// Where a prefill worker's links and transport leave what they have to say to its engine thread.
// Made first and destroyed last, so that carrier and sender may call it as long as they live.
#pragma once

#include <cstdint>
#include <functional>
#include <variant>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/handoff/handoff_link.h"
#include "engine/handoff/mailbox.h"
#include "engine/transport/kv_sender.h"

namespace tessera {

class PrefillMailbox final : public DecodePort::Listener, public KvSender::Listener {
 public:
  struct LinkMessage {
    LinkId link = 0;
    DecodeMessage message;
  };
  struct LinkClosed {
    LinkId link = 0;
    Status status;
  };
  struct PeerConnected {
    PeerId peer = 0;
  };
  struct ParcelsAcked {
    PeerId peer = 0;
    HandoffKey key;
    int64_t num_parcels = 0;
    Deadline::Clock::time_point at;  ///< when it was heard: the engine reads it a step later
  };
  struct KeyDrained {
    PeerId peer = 0;
    HandoffKey key;
  };
  struct ParcelFailed {
    PeerId peer = 0;
    HandoffKey key;
    Status status;
  };
  /// The peer is gone and all of it is drained; with `status` ok it was disconnected on request.
  struct PeerGone {
    PeerId peer = 0;
    Status status;
  };
  using Event = std::variant<LinkMessage,
                             LinkClosed,
                             PeerConnected,
                             ParcelsAcked,
                             KeyDrained,
                             ParcelFailed,
                             PeerGone>;

  /// A link that sends more than `max_events` between two turns of the engine is closed.
  explicit PrefillMailbox(size_t max_events = 65536) : mailbox_(max_events) {}

  void set_waker(std::function<void()> waker) { mailbox_.set_waker(std::move(waker)); }
  void take(std::vector<Event>& events) { mailbox_.take(events); }

  void on_link_message(LinkId link, DecodeMessage message) override;
  void on_link_closed(LinkId link, const Status& status) override;
  void on_connected(PeerId peer) override;
  void on_acked(PeerId peer, const HandoffKey& key, int64_t num_parcels) override;
  void on_drained(PeerId peer, const HandoffKey& key) override;
  void on_parcel_failed(PeerId peer, const HandoffKey& key, const Status& status) override;
  void on_peer_failed(PeerId peer, const Status& status) override;
  void on_disconnected(PeerId peer) override;

 private:
  Mailbox<Event> mailbox_;
};

}  // namespace tessera
