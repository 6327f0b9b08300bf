#include "engine/handoff/prefill_mailbox.h"

#include <utility>

namespace tessera {

void PrefillMailbox::on_link_message(LinkId link, DecodeMessage message) {
  if (!mailbox_.try_post(LinkMessage{link, std::move(message)})) {
    // A message is lost, so the link must not go on. The side closes it; once a flood is heard, the
    // rest of it finds the mailbox empty again.
    mailbox_.post(LinkClosed{link, resource_exhausted("the decode leader sends too much")});
  }
}

void PrefillMailbox::on_link_closed(LinkId link, const Status& status) {
  mailbox_.post(LinkClosed{link, status.is_ok() ? unavailable("the link was closed") : status});
}

void PrefillMailbox::on_connected(PeerId peer) {
  mailbox_.post(PeerConnected{peer});
}

void PrefillMailbox::on_acked(PeerId peer, const HandoffKey& key, int64_t num_parcels) {
  mailbox_.post(ParcelsAcked{peer, key, num_parcels, Deadline::Clock::now()});
}

void PrefillMailbox::on_drained(PeerId peer, const HandoffKey& key) {
  mailbox_.post(KeyDrained{peer, key});
}

void PrefillMailbox::on_parcel_failed(PeerId peer, const HandoffKey& key, const Status& status) {
  mailbox_.post(ParcelFailed{peer, key, status});
}

void PrefillMailbox::on_peer_failed(PeerId peer, const Status& status) {
  mailbox_.post(PeerGone{peer, status});
}

void PrefillMailbox::on_disconnected(PeerId peer) {
  mailbox_.post(PeerGone{peer, Status::ok()});
}

}  // namespace tessera
