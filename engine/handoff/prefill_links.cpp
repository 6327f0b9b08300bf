#include "engine/handoff/prefill_links.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "engine/handoff/parcel_plan.h"

namespace tessera {

PrefillLinks::PrefillLinks(const PrefillSideOptions& options,
                           DecodePort& port,
                           KvSender& sender,
                           const BlockSource& source,
                           HandoffMetrics& metrics,
                           Owner& owner)
    : options_(options),
      port_(port),
      sender_(sender),
      source_(source),
      metrics_(metrics),
      owner_(owner) {}

DecodeLink* PrefillLinks::find_or_open(const std::string& address, TimePoint now) {
  const auto found = links_.find(address);
  if (found != links_.end()) {
    return found->second.get();
  }
  const auto back_off = back_off_.find(address);
  if (links_.size() >= options_.max_links ||
      (back_off != back_off_.end() && now < back_off->second.until)) {
    return nullptr;
  }
  auto link = std::make_unique<DecodeLink>();
  link->address = address;
  link->opened_at = now;
  link->heard_at = now;
  link->keep_alive_at = now + options_.times.keep_alive_period;
  link->id = port_.open(address);
  log_info("decode_link_open", "address", address, "link", link->id);
  port_.send(link->id,
             Hello{.protocol = kHandoffProtocol,
                   .epoch = options_.epoch,
                   .worker_name = options_.worker_name,
                   .fingerprint = options_.fingerprint});
  return links_.emplace(address, std::move(link)).first->second.get();
}

DecodeLink* PrefillLinks::find(LinkId id) {
  for (const auto& [address, link] : links_) {
    if (link->id == id) {
      return link.get();
    }
  }
  return nullptr;
}

DecodeLink* PrefillLinks::find_peer(PeerId peer) {
  for (const auto& [address, link] : links_) {
    if (link->state != DecodeLink::State::kGreeting && link->peer == peer) {
      return link.get();
    }
  }
  return nullptr;
}

void PrefillLinks::on_welcome(DecodeLink& link, const Welcome& welcome, TimePoint now) {
  Status status = check_welcome(welcome, source_, options_.window);
  if (link.state != DecodeLink::State::kGreeting) {
    status = failed_precondition("a second Welcome");
  }
  if (!status.is_ok()) {
    fail(link, status, now);
    return;
  }
  link.decode_epoch = welcome.epoch;
  link.layout = welcome.layout;
  link.peer = sender_.connect(welcome.regions);
  link.state = DecodeLink::State::kConnecting;
}

void PrefillLinks::on_connected(PeerId peer, TimePoint now) {
  DecodeLink* link = find_peer(peer);
  if (link == nullptr || link->state != DecodeLink::State::kConnecting) {
    return;
  }
  link->state = DecodeLink::State::kReady;
  back_off_.erase(link->address);
  metrics_.links.add(1);
  const std::chrono::duration<double> seconds = now - link->opened_at;
  log_info("decode_link_ready",
           "address",
           link->address,
           "link",
           link->id,
           "ranks",
           link->layout.num_ranks,
           "seconds",
           seconds.count());
  owner_.on_link_ready(*link);
}

void PrefillLinks::fail(DecodeLink& link, const Status& status, TimePoint now, bool is_peer_gone) {
  back_off(link.address, now);
  metrics_.links_failed.add();
  log_warning(
      "decode_link_lost", "address", link.address, "link", link.id, "reason", status.to_string());
  remove(link, status, is_peer_gone);
}

void PrefillLinks::remove(DecodeLink& link, const Status& status, bool is_peer_gone) {
  const auto entry = links_.find(link.address);
  const std::unique_ptr<DecodeLink> dead = std::move(entry->second);
  links_.erase(entry);
  metrics_.links.add(dead->state == DecodeLink::State::kReady ? -1 : 0);
  port_.close(dead->id);
  owner_.on_link_lost(*dead, status);
  if (dead->state != DecodeLink::State::kGreeting && !is_peer_gone) {
    sender_.disconnect(dead->peer);
  }
}

void PrefillLinks::back_off(const std::string& address, TimePoint now) {
  if (back_off_.size() >= 4 * options_.max_links) {  // addresses of leaders long gone
    back_off_.clear();
  }
  BackOff& entry = back_off_[address];
  entry.delay =
      std::clamp(2 * entry.delay, options_.times.back_off_min, options_.times.back_off_max);
  entry.until = now + entry.delay;
}

void PrefillLinks::sweep(TimePoint now) {
  std::vector<DecodeLink*> expired;
  for (const auto& [address, link] : links_) {
    if (now >= expiry(*link)) {
      expired.push_back(link.get());
    } else if (now >= link->keep_alive_at) {
      port_.send(link->id, KeepAlive{.live = owner_.live_keys(*link)});
      link->keep_alive_at = now + options_.times.keep_alive_period;
    }
  }
  for (DecodeLink* link : expired) {
    expire(*link, now);
  }
}

PrefillLinks::TimePoint PrefillLinks::expiry(const DecodeLink& link) const {
  const TimePoint lease = link.heard_at + options_.times.lease;
  if (link.state != DecodeLink::State::kReady) {
    return std::min(lease, link.opened_at + options_.times.connect_limit);
  }
  return link.num_unacked == 0 ? lease
                               : std::min(lease, link.progress_at + options_.times.progress_limit);
}

void PrefillLinks::expire(DecodeLink& link, TimePoint now) {
  metrics_.leases_expired.add();
  if (link.state != DecodeLink::State::kReady) {
    fail(link, unavailable("the decode leader did not connect in time"), now);
  } else if (now >= link.heard_at + options_.times.lease) {
    fail(link, unavailable("the decode leader has been silent for a lease"), now);
  } else {
    fail(link, unavailable("the decode group acknowledges nothing"), now);
  }
}

PrefillLinks::TimePoint PrefillLinks::next_deadline() const {
  TimePoint next = TimePoint::max();
  for (const auto& [address, link] : links_) {
    next = std::min({next, expiry(*link), link->keep_alive_at});
  }
  return next;
}

void PrefillLinks::close_all(const Status& status) {
  while (!links_.empty()) {
    DecodeLink& link = *links_.begin()->second;
    log_info("decode_link_closed", "address", link.address, "link", link.id);
    remove(link, status, false);
  }
}

}  // namespace tessera
