// The sender over UCX. Its thread owns the peers; what callers may ask is kept beside it.
#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/transport/progress_thread.h"
#include "engine/transport/ucx_context.h"
#include "engine/transport/ucx_peer.h"
#include "engine/transport/ucx_transport.h"

namespace tessera {
namespace {

using Time = ProgressThread::Time;

class UcxSender final : public KvSender, private ProgressThread::Work {
 public:
  UcxSender(const SenderOptions& options, Listener& listener, std::unique_ptr<UcxContext> context)
      : options_(options),
        listener_(listener),
        context_(std::move(context)),
        thread_("kv-send", *this) {}

  Status register_memory(void* base, int64_t num_bytes) override;
  PeerId connect(const std::vector<LandingRegion>& regions) override;
  void disconnect(PeerId peer) override;
  void send(PeerId peer, std::vector<Parcel> parcels) override;
  void abort(PeerId peer, const HandoffKey& key) override;
  std::vector<LaneStatistics> statistics(PeerId peer) const override;

 private:
  /// What other threads may see of a peer that had no last call yet.
  struct Account {
    std::vector<LaneStatistics> lanes;
    bool is_leaving = false;
  };

  bool turn(Time now) override;
  bool is_active() const override;
  bool arm() override;
  Time next_timer() const override;
  void finish() override;

  void add_peer(PeerId id, std::vector<LandingRegion> regions);
  void retire(PeerId id, const Status& status);
  /// Runs `action` on the peer, on the thread, if it is still there.
  template <typename Action>
  void post_to(PeerId id, Action action);

  const SenderOptions options_;
  Listener& listener_;
  const std::unique_ptr<UcxContext> context_;
  mutable std::mutex mutex_;  // guards the three below
  std::vector<UcxMemory> memories_;
  std::map<PeerId, Account> accounts_;
  PeerId last_id_ = 0;
  std::map<PeerId, std::unique_ptr<UcxPeer>> peers_;
  ProgressThread thread_;  // last: the rest is there when it starts
};

template <typename Action>
void UcxSender::post_to(PeerId id, Action action) {
  thread_.post([this, id, action = std::move(action)] {
    const auto found = peers_.find(id);
    if (found != peers_.end()) {
      action(*found->second);
    }
  });
}

Status UcxSender::register_memory(void* base, int64_t num_bytes) {
  TESSERA_TRY(UcxMemory memory, UcxMemory::create(*context_, base, num_bytes));
  const std::lock_guard lock(mutex_);
  memories_.push_back(std::move(memory));
  return Status::ok();
}

PeerId UcxSender::connect(const std::vector<LandingRegion>& regions) {
  PeerId id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_id_;
    accounts_[id].lanes.resize(regions.size());
  }
  thread_.post([this, id, regions] { add_peer(id, regions); });
  return id;
}

void UcxSender::add_peer(PeerId id, std::vector<LandingRegion> regions) {
  bool has_device_memory = false;
  {
    const std::lock_guard lock(mutex_);
    has_device_memory = std::any_of(
        memories_.begin(), memories_.end(), [](const UcxMemory& m) { return !m.is_host(); });
  }
  auto peer = std::make_unique<UcxPeer>(id, std::move(regions), options_, listener_);
  peer->connect(*context_, has_device_memory, Deadline::Clock::now());
  for (const int fd : peer->event_fds()) {
    thread_.watch(fd);
  }
  peers_.emplace(id, std::move(peer));
}

void UcxSender::disconnect(PeerId peer) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = accounts_.find(peer);
    if (found == accounts_.end()) {
      return;  // on_peer_failed() was or is being called
    }
    found->second.is_leaving = true;
  }
  post_to(peer, [](UcxPeer& target) { target.leave(Deadline::Clock::now()); });
}

void UcxSender::send(PeerId peer, std::vector<Parcel> parcels) {
  post_to(peer, [parcels = std::move(parcels)](UcxPeer& target) { target.core().send(parcels); });
}

void UcxSender::abort(PeerId peer, const HandoffKey& key) {
  post_to(peer, [key](UcxPeer& target) { target.core().abort(key); });
}

std::vector<LaneStatistics> UcxSender::statistics(PeerId peer) const {
  const std::lock_guard lock(mutex_);
  const auto found = accounts_.find(peer);
  return found == accounts_.end() ? std::vector<LaneStatistics>() : found->second.lanes;
}

bool UcxSender::turn(Time now) {
  bool has_acted = false;
  for (auto entry = peers_.begin(); entry != peers_.end();) {
    auto& [id, peer] = *entry;
    if (peer->turn(now)) {
      has_acted = true;
      const std::lock_guard lock(mutex_);
      accounts_[id].lanes = peer->core().statistics();
    }
    if (!peer->is_over()) {
      ++entry;
      continue;
    }
    retire(id, peer->status());
    entry = peers_.erase(entry);
  }
  return has_acted;
}

void UcxSender::retire(PeerId id, const Status& status) {
  bool is_leaving = false;
  {
    const std::lock_guard lock(mutex_);
    is_leaving = accounts_[id].is_leaving;
    accounts_.erase(id);
  }
  if (is_leaving) {
    listener_.on_disconnected(id);
    return;
  }
  log_warning("transport_peer_failed", "peer", id, "status", status.to_string());
  listener_.on_peer_failed(id, status);
}

bool UcxSender::is_active() const {
  return std::any_of(
      peers_.begin(), peers_.end(), [](const auto& entry) { return entry.second->is_active(); });
}

bool UcxSender::arm() {
  return std::all_of(
      peers_.begin(), peers_.end(), [](const auto& entry) { return entry.second->arm(); });
}

Time UcxSender::next_timer() const {
  Time next = Time::max();
  const Time now = Deadline::Clock::now();
  for (const auto& [id, peer] : peers_) {
    next = std::min(next, peer->next_timer(now));
  }
  return next;
}

void UcxSender::finish() {
  for (const auto& [id, peer] : peers_) {
    peer->leave(Deadline::Clock::now());
    const std::lock_guard lock(mutex_);
    accounts_[id].is_leaving = true;
  }
  while (!peers_.empty()) {
    turn(Deadline::Clock::now());
  }
}

}  // namespace

Result<std::unique_ptr<KvSender>> create_ucx_sender(const SenderOptions& options,
                                                    KvSender::Listener& listener) {
  TESSERA_TRY(std::unique_ptr<UcxContext> context, UcxContext::create());
  return std::unique_ptr<KvSender>(
      std::make_unique<UcxSender>(options, listener, std::move(context)));
}

}  // namespace tessera
