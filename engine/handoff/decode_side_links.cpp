// The part of DecodeSide that deals with links and with times.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/handoff/decode_side.h"

namespace tessera {

void DecodeSide::on_opened(const DecodeMailbox::LinkOpened& opened) {
  if (links_.size() >= options_.max_links) {
    opened.door->close(resource_exhausted(
        str_cat("the decode leader has ", options_.max_links, " links already")));
    return;
  }
  Link link;
  link.door = opened.door;
  link.heard_at = now_;
  link.keep_alive_at = now_ + options_.times.keep_alive_period;
  links_.emplace(opened.link, std::move(link));
}

void DecodeSide::on_link_message(LinkId id, PrefillMessage& message) {
  const auto found = links_.find(id);
  if (found == links_.end()) {
    return;  // the link was given up
  }
  Link& link = found->second;
  link.heard_at = now_;
  const auto* hello = std::get_if<Hello>(&message);
  if ((hello != nullptr) == link.is_greeted) {
    drop_link(id, failed_precondition("Hello comes first, and once"), false);
    return;
  }
  if (hello != nullptr) {
    on_hello(id, link, *hello);
    return;
  }
  std::visit(
      [&](auto& detail) {
        if constexpr (!std::is_same_v<std::decay_t<decltype(detail)>, Hello>) {
          on_message(id, link, detail);
        }
      },
      message);
}

void DecodeSide::on_hello(LinkId id, Link& link, const Hello& hello) {
  link.worker_name = hello.worker_name;
  if (hello.protocol != kHandoffProtocol) {
    drop_link(id,
              failed_precondition(str_cat(
                  "prefill speaks protocol ", hello.protocol, ", decode ", kHandoffProtocol)),
              false);
    return;
  }
  if (hello.fingerprint != options_.fingerprint) {
    drop_link(
        id,
        failed_precondition(str_cat(
            "prefill keeps cache layout ", hello.fingerprint, ", decode ", options_.fingerprint)),
        false);
    return;
  }
  Result<std::vector<LandingRegion>> regions = open_regions(link);
  if (!regions.is_ok()) {
    drop_link(id, regions.status(), false);
    return;
  }
  link.is_greeted = true;
  metrics_.links.add(1);
  log_info("prefill_link_open", "worker", link.worker_name, "link", id);
  send(id,
       Welcome{.epoch = options_.epoch,
               .layout = options_.layout,
               .regions = std::move(regions).value()});
}

Result<std::vector<LandingRegion>> DecodeSide::open_regions(Link& link) {
  std::vector<LandingRegion> regions;
  for (KvReceiver* receiver : parts_.receivers) {
    TESSERA_TRY(LandingRegion region, receiver->open());
    link.connections.push_back(region.connection);
    regions.push_back(std::move(region));
  }
  return regions;
}

void DecodeSide::on_connection_failed(const DecodeMailbox::ConnectionFailed& failed) {
  for (const auto& [id, link] : links_) {
    const auto& connections = link.connections;
    if (std::find(connections.begin(), connections.end(), failed.connection) != connections.end()) {
      drop_link(id, unavailable(str_cat("the transport failed: ", failed.status.message())), false);
      return;
    }
  }
}

void DecodeSide::drop_link(LinkId id, const Status& status, bool is_closed) {
  const auto found = links_.find(id);
  if (found == links_.end()) {
    return;
  }
  Link link = std::move(found->second);
  links_.erase(found);
  std::vector<HandoffKey> lost;
  for (const auto& [request, reservation] : reservations_) {
    if (reservation.link == id) {
      lost.push_back(reservation.key);
    }
  }
  // The regions first: what is still on its way lands nowhere when the blocks are freed.
  for (size_t rank = 0; rank < link.connections.size(); ++rank) {
    parts_.receivers[rank]->close(link.connections[rank]);
  }
  for (const HandoffKey& key : lost) {
    abort(*find(key),
          unavailable(str_cat("prefill ", link.worker_name, " is lost: ", status.message())),
          Tell::kRouter);
  }
  if (!is_closed) {
    link.door->close(status);
  }
  metrics_.links.add(link.is_greeted ? -1 : 0);
  if (is_closed && lost.empty()) {  // as when a prefill worker drains and ends
    log_info("prefill_link_closed", "worker", link.worker_name, "link", id);
    return;
  }
  metrics_.links_failed.add();
  log_warning("prefill_link_lost",
              "worker",
              link.worker_name,
              "link",
              id,
              "reservations",
              lost.size(),
              "reason",
              status.to_string());
}

void DecodeSide::send(LinkId id, DecodeMessage message) {
  const auto link = links_.find(id);
  if (link != links_.end()) {
    link->second.door->send(std::move(message));
  }
}

void DecodeSide::sweep_links() {
  std::vector<LinkId> expired;
  for (auto& [id, link] : links_) {
    if (now_ >= link.heard_at + options_.times.lease) {
      expired.push_back(id);
      continue;
    }
    if (now_ < link.keep_alive_at) {
      continue;
    }
    link.keep_alive_at = now_ + options_.times.keep_alive_period;
    if (link.is_greeted) {
      KeepAlive keep_alive;
      for (const auto& [request, reservation] : reservations_) {
        if (reservation.link == id) {
          keep_alive.live.push_back(reservation.key);
        }
      }
      link.door->send(std::move(keep_alive));
    }
  }
  for (const LinkId id : expired) {
    metrics_.leases_expired.add();
    drop_link(id, unavailable("silent for a lease"), false);
  }
}

void DecodeSide::sweep_reservations() {
  std::vector<HandoffKey> expired;
  for (const auto& [request, reservation] : reservations_) {
    if (now_ >= expiry(reservation)) {
      expired.push_back(reservation.key);
    }
  }
  for (const HandoffKey& key : expired) {
    expire(*find(key));
  }
}

DecodeSide::TimePoint DecodeSide::expiry(const Reservation& reservation) const {
  if (!reservation.attach) {
    return reservation.granted_at + options_.times.attach_limit;
  }
  TimePoint at = reservation.attach->deadline.at();
  if (reservation.seal) {  // prefill has sent everything
    at = std::min(at, reservation.sealed_at + options_.times.progress_limit);
  }
  return at;
}

void DecodeSide::expire(Reservation& reservation) {
  if (!reservation.attach) {
    abort(reservation, unavailable("no router attached in time"), Tell::kPrefill);
  } else if (reservation.attach->deadline.is_expired(now_)) {
    abort(reservation,
          {StatusCode::kDeadlineExceeded, "the request's deadline has passed"},
          Tell::kBoth);
  } else {
    abort(reservation,
          unavailable("prefill sealed the handoff, but its blocks did not land"),
          Tell::kBoth);
  }
}

DecodeSide::TimePoint DecodeSide::next_deadline() const {
  TimePoint next = TimePoint::max();
  for (const auto& [id, link] : links_) {
    next = std::min({next, link.heard_at + options_.times.lease, link.keep_alive_at});
  }
  for (const auto& [request, reservation] : reservations_) {
    next = std::min(next, expiry(reservation));
  }
  return next;
}

bool DecodeSide::has_work() const {
  return !reservations_.empty();
}

void DecodeSide::fail_all(const Status& status) {
  while (!reservations_.empty()) {
    abort(reservations_.begin()->second, status, Tell::kBoth);
  }
}

void DecodeSide::shut_down(const Status& status) {
  parts_.mailbox.take(events_);  // attachments whose sinks wait for an answer
  for (DecodeMailbox::Event& event : events_) {
    if (auto* attached = std::get_if<DecodeMailbox::Attached>(&event)) {
      on_attached(*attached);
    }
  }
  fail_all(status);
  while (!links_.empty()) {
    drop_link(links_.begin()->first, status, false);
  }
  parts_.mailbox.set_waker({});
}

}  // namespace tessera
