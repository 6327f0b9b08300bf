// The sender over UCX. Its thread owns the peers; what callers may ask is kept beside it.
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/transport/device_guard.h"
#include "engine/transport/device_pool.h"
#include "engine/transport/progress_thread.h"
#include "engine/transport/sender_accounts.h"
#include "engine/transport/ucx_context.h"
#include "engine/transport/ucx_peer.h"
#include "engine/transport/ucx_transport.h"

namespace tessera {
namespace {

using Time = ProgressThread::Time;

class UcxSender final : public KvSender, private ProgressThread::Work {
 public:
  UcxSender(const SenderOptions& options,
            Listener& listener,
            kernels::ImageMover* mover,
            std::shared_ptr<UcxContext> context)
      : options_(options),
        listener_(listener),
        mover_(mover),
        pool_(mover != nullptr ? std::make_optional<DevicePool>(*mover) : std::nullopt),
        context_(std::move(context)),
        thread_("kv-send",
                *this,
                mover != nullptr ? ProgressThread::kDeviceSpin : ProgressThread::kHostSpin) {
    thread_.post([this] { enter_device(mover_); });
  }

  Status register_memory(void* base, int64_t num_bytes) override;
  PeerId connect(const std::vector<LandingRegion>& regions) override;
  void disconnect(PeerId peer) override;
  void send(PeerId peer, std::vector<Parcel> parcels) override;
  void abort(PeerId peer, const HandoffKey& key) override;
  std::vector<LaneStatistics> statistics(PeerId peer) const override;

 private:
  bool turn(Time now) override;
  bool is_active() const override;
  bool arm() override;
  Time next_timer() const override;
  void finish() override;

  void add_peer(const SenderAccounts::Opened& account, std::vector<LandingRegion> regions);
  /// Runs `action` on the peer, on the thread, if it is still there.
  template <typename Action>
  void post_to(PeerId id, Action action);

  const SenderOptions options_;
  Listener& listener_;
  kernels::ImageMover* const mover_;
  std::optional<DevicePool> pool_;             // with a mover; of the thread
  const std::shared_ptr<UcxContext> context_;  // shared with the memories
  SenderAccounts accounts_;
  std::mutex mutex_;  // guards memories_
  std::vector<UcxMemory> memories_;
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
  enter_device(mover_);
  TESSERA_TRY(UcxMemory memory,
              UcxMemory::create(context_, base, num_bytes, mover_ != nullptr && mover_->is_cuda()));
  const std::lock_guard lock(mutex_);
  memories_.push_back(std::move(memory));
  return Status::ok();
}

PeerId UcxSender::connect(const std::vector<LandingRegion>& regions) {
  const SenderAccounts::Opened account = accounts_.open(regions.size());
  thread_.post([this, account, regions] { add_peer(account, regions); });
  return account.id;
}

void UcxSender::add_peer(const SenderAccounts::Opened& account,
                         std::vector<LandingRegion> regions) {
  auto peer = std::make_unique<UcxPeer>(
      account, std::move(regions), options_, listener_, pool_ ? &*pool_ : nullptr);
  peer->connect(*context_, Deadline::Clock::now());
  for (const int fd : peer->event_fds()) {
    thread_.watch(fd);
  }
  peers_.emplace(account.id, std::move(peer));
}

void UcxSender::disconnect(PeerId peer) {
  if (accounts_.begin_leaving(peer)) {
    post_to(peer, [](UcxPeer& target) { target.leave(Deadline::Clock::now()); });
  }
}

void UcxSender::send(PeerId peer, std::vector<Parcel> parcels) {
  post_to(peer, [parcels = std::move(parcels)](UcxPeer& target) { target.core().send(parcels); });
}

void UcxSender::abort(PeerId peer, const HandoffKey& key) {
  post_to(peer, [key](UcxPeer& target) { target.core().abort(key); });
}

std::vector<LaneStatistics> UcxSender::statistics(PeerId peer) const {
  return accounts_.read(peer);
}

bool UcxSender::turn(Time now) {
  bool has_acted = false;
  for (auto entry = peers_.begin(); entry != peers_.end();) {
    const auto& [id, peer] = *entry;
    has_acted = peer->turn(now) || has_acted;
    if (!peer->is_over()) {
      ++entry;
      continue;
    }
    accounts_.close(id, peer->status(), listener_);
    entry = peers_.erase(entry);
  }
  return has_acted;
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
    if (accounts_.begin_leaving(id)) {
      peer->leave(Deadline::Clock::now());
    }
  }
  const auto is_stuck = [](const auto& entry) { return entry.second->is_stuck(); };
  while (!std::all_of(peers_.begin(), peers_.end(), is_stuck)) {
    turn(Deadline::Clock::now());
  }
}

}  // namespace

Result<std::unique_ptr<KvSender>> create_ucx_sender(const SenderOptions& options,
                                                    KvSender::Listener& listener,
                                                    kernels::ImageMover* mover) {
  enter_device(mover);
  TESSERA_TRY(std::shared_ptr<UcxContext> context,
              UcxContext::create(mover != nullptr && mover->is_cuda()));
  return std::unique_ptr<KvSender>(
      std::make_unique<UcxSender>(options, listener, mover, std::move(context)));
}

}  // namespace tessera
