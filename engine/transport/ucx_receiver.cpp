// The receiver over UCX. Its thread owns the links; the landing table and the counters are shared
// with the callers' threads.
#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/transport/device_guard.h"
#include "engine/transport/landing_arena.h"
#include "engine/transport/landing_table.h"
#include "engine/transport/progress_thread.h"
#include "engine/transport/send_peer.h"
#include "engine/transport/ucx_context.h"
#include "engine/transport/ucx_link.h"
#include "engine/transport/ucx_transport.h"

namespace tessera {
namespace {

using Time = ProgressThread::Time;
using MessageKind = UcxLink::MessageKind;

/// Answers go out after so much was copied, so that the sender can refill the slots meanwhile.
constexpr int64_t kAnswerBytes = int64_t{1} << 20U;
/// A few batches of the sender, when they have come together: one kernel copies them.
constexpr int64_t kDeviceAnswerBytes = 3 * SendPeer::kDeviceBatchBytes;
/// A forced close takes microseconds; after this the worker is destroyed as it is.
constexpr std::chrono::seconds kCloseTimeout{2};
/// Not every step of closing announces itself by an event.
constexpr std::chrono::milliseconds kClosePeriod{1};
/// Announcements that wait on one link: every slot once, and again while this thread is busy.
constexpr size_t kMaxPending = 4096;

/// One link. On the receiver's thread once it was handed over. Members die from the last to the
/// first: the worker, then the memory.
struct Link {
  std::optional<UcxMemory> memory;  ///< of the host; none: a part of the arena
  std::byte* slots = nullptr;
  std::unique_ptr<UcxLink> ucx;
  std::vector<Ready> pending = {};
  bool said_goodbye = false;  ///< the sender has nothing in flight and will never put again
  bool is_failure_told = false;
  Time close_deadline = {};
};

class UcxReceiver final : public KvReceiver, private ProgressThread::Work {
 public:
  struct Parts {
    std::shared_ptr<UcxContext> context;   // shared with the memories
    kernels::ImageMover* mover = nullptr;  ///< of the device that blocks lie in; null: the host
    std::unique_ptr<LandingArena> arena;   ///< with a mover; guarded by mutex_
  };

  UcxReceiver(const ReceiverOptions& options,
              int32_t rank,
              const CacheBlocks& blocks,
              Listener& listener,
              Parts parts)
      : options_(options),
        rank_(rank),
        slot_bytes_(landing_slot_bytes(blocks.image_bytes)),
        listener_(listener),
        parts_(std::move(parts)),
        table_(blocks, options.faults, parts_.mover),
        thread_(str_cat("kv-recv-", rank),
                *this,
                parts_.mover != nullptr ? ProgressThread::kDeviceSpin : ProgressThread::kHostSpin) {
    thread_.post([this] { enter_device(parts_.mover); });
  }

  Result<LandingRegion> open() override;
  void close(uint64_t connection) override;
  void expect(uint64_t connection, const HandoffKey& key, std::vector<int32_t> block_ids) override;
  void forget(const HandoffKey& key) override { table_.forget(key); }
  ReceiverStatistics statistics() const override;

 private:
  bool turn(Time now) override;
  bool is_active() const override;
  bool arm() override;
  Time next_timer() const override;
  void finish() override;

  Status take_place();
  void return_place();
  Result<Link> make_link();
  void begin_close(uint64_t connection);
  bool turn_link(uint64_t connection, Link& link);
  void handle(uint64_t connection, Link& link, const UcxLink::Message& message);
  void accept(uint64_t connection, Link& link, std::string_view bytes);
  struct Landed {
    std::vector<Ack> acks;
    std::vector<HandoffKey> complete;
    int64_t copied_bytes = 0;
  };
  bool land_pending(uint64_t connection, Link& link);
  /// Throws DeviceError.
  void land(uint64_t connection, std::span<const Ready> batch, Landed& landed);
  void answer(Link& link, std::vector<Ack>& acks);
  void tell_failure(uint64_t connection, Link& link, const Status& status);
  void dispose(Link& link);

  const ReceiverOptions options_;
  const int32_t rank_;
  const int64_t slot_bytes_;
  Listener& listener_;
  const Parts parts_;
  LandingTable table_;
  mutable std::mutex mutex_;  // guards the three below
  int64_t open_regions_ = 0;
  int64_t revoked_regions_ = 0;
  std::string lane_;
  std::map<uint64_t, Link> links_;
  int64_t num_answers_ = 0;  // for faults
  ProgressThread thread_;    // last: the rest is there when it starts
};

Status UcxReceiver::take_place() {
  const std::lock_guard lock(mutex_);
  if (open_regions_ >= options_.max_regions) {
    return resource_exhausted(
        str_cat("rank ", rank_, " has ", open_regions_, " landing regions already"));
  }
  if (revoked_regions_ >= options_.max_revoked_regions) {
    return resource_exhausted(str_cat(
        "rank ", rank_, " had to revoke ", revoked_regions_, " landing regions: restart it"));
  }
  ++open_regions_;
  return Status::ok();
}

void UcxReceiver::return_place() {
  const std::lock_guard lock(mutex_);
  --open_regions_;
}

Result<Link> UcxReceiver::make_link() {
  Link link;
  if (parts_.arena == nullptr) {
    TESSERA_TRY(UcxMemory memory,
                UcxMemory::allocate(parts_.context, slot_bytes_ * options_.num_slots));
    link.memory.emplace(std::move(memory));
    link.slots = link.memory->data();
    TESSERA_TRY(link.ucx, UcxLink::create(*parts_.context));
    return link;
  }
  enter_device(parts_.mover);
  TESSERA_TRY(link.ucx, UcxLink::create(*parts_.context));
  const std::lock_guard lock(mutex_);
  link.slots = parts_.arena->take();
  if (link.slots == nullptr) {
    return resource_exhausted(str_cat("rank ",
                                      rank_,
                                      " has no landing region left in GPU memory: of ",
                                      options_.max_regions,
                                      ", ",
                                      revoked_regions_,
                                      " belong to prefill workers that left without a word"));
  }
  return link;
}

Result<LandingRegion> UcxReceiver::open() {
  TESSERA_RETURN_IF_ERROR(take_place());
  Result<Link> made = make_link();
  Result<std::string> remote_key = parts_.arena != nullptr
                                       ? Result<std::string>(parts_.arena->remote_key())
                                   : made.is_ok() ? made.value().memory->remote_key()
                                                  : Result<std::string>(made.status());
  if (!made.is_ok() || !remote_key.is_ok()) {
    return_place();
    return made.is_ok() ? remote_key.status() : made.status();
  }
  auto link = std::make_shared<Link>(std::move(made).value());
  LandingRegion region;
  region.rank = rank_;
  region.worker_address = link->ucx->address();
  region.connection = RequestId::random().high;
  region.base_address = reinterpret_cast<uint64_t>(link->slots);
  region.remote_key = std::move(remote_key).value();
  region.num_slots = options_.num_slots;
  region.slot_bytes = slot_bytes_;
  table_.add_region(region.connection, {link->slots, region.num_slots, region.slot_bytes});
  // Shared with the command only, because a std::function must be copyable.
  thread_.post([this, connection = region.connection, link] {
    thread_.watch(link->ucx->event_fd());
    links_.emplace(connection, std::move(*link));
  });
  return region;
}

void UcxReceiver::close(uint64_t connection) {
  table_.remove_region(connection);
  thread_.post([this, connection] { begin_close(connection); });
}

void UcxReceiver::expect(uint64_t connection,
                         const HandoffKey& key,
                         std::vector<int32_t> block_ids) {
  if (table_.expect(connection, key, std::move(block_ids))) {
    thread_.post([this, key] { listener_.on_landed(rank_, key); });
  }
}

ReceiverStatistics UcxReceiver::statistics() const {
  const LandingCounts counts = table_.counts();
  ReceiverStatistics statistics;
  statistics.landed_bytes = counts.landed_bytes;
  statistics.landed_parcels = counts.landed_parcels;
  statistics.refused_parcels = counts.refused_parcels;
  const std::lock_guard lock(mutex_);
  statistics.open_regions = open_regions_;
  statistics.revoked_regions = revoked_regions_;
  statistics.lane = lane_;
  return statistics;
}

void UcxReceiver::begin_close(uint64_t connection) {
  const auto found = links_.find(connection);
  if (found == links_.end() || found->second.ucx->is_closing()) {
    return;
  }
  found->second.pending.clear();
  found->second.ucx->begin_close();
  found->second.close_deadline = Deadline::Clock::now() + kCloseTimeout;
}

bool UcxReceiver::turn(Time now) {
  bool has_acted = false;
  for (auto entry = links_.begin(); entry != links_.end();) {
    auto& [connection, link] = *entry;
    has_acted = turn_link(connection, link) || has_acted;
    const bool is_over = link.ucx->is_closed() || now >= link.close_deadline;
    if (link.ucx->is_closing() && is_over) {
      dispose(link);
      entry = links_.erase(entry);
      continue;
    }
    ++entry;
  }
  return has_acted;
}

bool UcxReceiver::turn_link(uint64_t connection, Link& link) {
  const bool has_progressed = link.ucx->progress();
  for (const UcxLink::Message& message : link.ucx->take_messages()) {
    handle(connection, link, message);
  }
  if (link.ucx->is_closing()) {
    return has_progressed;
  }
  const bool has_landed = land_pending(connection, link);
  if (!link.ucx->failure().is_ok()) {
    tell_failure(connection, link, link.ucx->failure());
  }
  return has_progressed || has_landed;
}

void UcxReceiver::handle(uint64_t connection, Link& link, const UcxLink::Message& message) {
  if (link.ucx->is_closing()) {
    return;
  }
  if (message.kind == MessageKind::kHello) {
    accept(connection, link, message.bytes);
    return;
  }
  if (message.kind == MessageKind::kGoodbye) {
    link.said_goodbye = true;
    link.ucx->send(MessageKind::kGoodbye, message.bytes);
    return;
  }
  const std::vector<Ready> batch =
      message.kind == MessageKind::kReady ? decode_ready(message.bytes) : std::vector<Ready>();
  if (batch.empty()) {
    log_warning("transport_message_ignored", "rank", rank_, "bytes", message.bytes.size());
    return;
  }
  if (link.pending.size() + batch.size() <= kMaxPending) {
    link.pending.insert(link.pending.end(), batch.begin(), batch.end());
  }
}

void UcxReceiver::accept(uint64_t connection, Link& link, std::string_view bytes) {
  const std::optional<LinkHello> hello = decode_hello(bytes);
  if (!hello || hello->connection != connection || link.ucx->is_connected()) {
    log_warning("transport_hello_ignored", "rank", rank_);
    return;
  }
  const Status status = link.ucx->connect(hello->worker_address);
  if (!status.is_ok()) {
    link.is_failure_told = true;
    listener_.on_connection_failed(rank_, connection, status);
    return;
  }
  const std::lock_guard lock(mutex_);
  lane_ = link.ucx->lane();
}

bool UcxReceiver::land_pending(uint64_t connection, Link& link) {
  const int64_t answer_bytes = parts_.mover != nullptr ? kDeviceAnswerBytes : kAnswerBytes;
  const int64_t most_images = parts_.mover != nullptr ? parts_.mover->max_images() : 1;
  const auto batch_size =
      static_cast<size_t>(std::clamp<int64_t>(answer_bytes / slot_bytes_, 1, most_images));
  Landed landed;
  size_t num_done = 0;
  while (num_done < link.pending.size() && landed.copied_bytes < answer_bytes) {
    const std::span<const Ready> rest = std::span(link.pending).subspan(num_done);
    const std::span<const Ready> batch = rest.first(std::min(batch_size, rest.size()));
    const Status status = guard_device([&] { land(connection, batch, landed); });
    if (!status.is_ok()) {
      link.pending.clear();
      tell_failure(connection, link, status);
      return true;
    }
    num_done += batch.size();
  }
  link.pending.erase(link.pending.begin(), link.pending.begin() + static_cast<ptrdiff_t>(num_done));
  answer(link, landed.acks);
  for (const HandoffKey& key : landed.complete) {
    listener_.on_landed(rank_, key);
  }
  return num_done > 0;
}

void UcxReceiver::land(uint64_t connection, std::span<const Ready> batch, Landed& landed) {
  const std::vector<LandingTable::Answer> answers = table_.land(connection, batch);
  for (size_t i = 0; i < batch.size(); ++i) {
    const Ready& ready = batch[i];
    landed.acks.push_back(
        {ready.key, ready.block_index, ready.slot, ready.generation, answers[i].code});
    landed.copied_bytes += answers[i].copied_bytes;
    if (answers[i].is_complete) {
      landed.complete.push_back(ready.key);
    }
  }
}

void UcxReceiver::answer(Link& link, std::vector<Ack>& acks) {
  std::erase_if(acks, [this](const Ack& ack) {
    if (ack.key == kSelfTestKey) {
      return false;
    }
    ++num_answers_;
    return num_answers_ == options_.faults.drop_ack;
  });
  for (size_t begin = 0; begin < acks.size(); begin += kMaxBatch) {
    const size_t count = std::min(kMaxBatch, acks.size() - begin);
    link.ucx->send(MessageKind::kAck, encode(std::span<const Ack>(acks).subspan(begin, count)));
  }
}

void UcxReceiver::tell_failure(uint64_t connection, Link& link, const Status& status) {
  if (!link.is_failure_told && !link.said_goodbye) {
    listener_.on_connection_failed(rank_, connection, status);
  }
  link.is_failure_told = true;
}

void UcxReceiver::dispose(Link& link) {
  thread_.unwatch(link.ucx->event_fd());
  link.ucx.reset();
  if (link.memory && !link.said_goodbye) {
    UcxMemory::revoke(std::move(*link.memory));
  }
  link.memory.reset();
  const std::lock_guard lock(mutex_);
  if (parts_.arena != nullptr && link.said_goodbye) {
    parts_.arena->give_back(link.slots);
  }
  --open_regions_;
  revoked_regions_ += link.said_goodbye ? 0 : 1;
}

bool UcxReceiver::is_active() const {
  return std::any_of(links_.begin(), links_.end(), [](const auto& entry) {
    return entry.second.ucx->has_operations();
  });
}

bool UcxReceiver::arm() {
  return std::all_of(
      links_.begin(), links_.end(), [](auto& entry) { return entry.second.ucx->arm(); });
}

Time UcxReceiver::next_timer() const {
  const bool is_closing = std::any_of(links_.begin(), links_.end(), [](const auto& entry) {
    return entry.second.ucx->is_closing();
  });
  return is_closing ? Deadline::Clock::now() + kClosePeriod : Time::max();
}

void UcxReceiver::finish() {
  for (auto& [connection, link] : links_) {
    table_.remove_region(connection);
    begin_close(connection);
  }
  while (!links_.empty()) {
    turn(Deadline::Clock::now());
  }
}

}  // namespace

Result<std::unique_ptr<KvReceiver>> create_ucx_receiver(const ReceiverOptions& options,
                                                        int32_t rank,
                                                        const CacheBlocks& blocks,
                                                        KvReceiver::Listener& listener,
                                                        kernels::ImageMover* mover) {
  enter_device(mover);
  UcxReceiver::Parts parts{.context = nullptr, .mover = mover, .arena = nullptr};
  TESSERA_TRY(parts.context, UcxContext::create(mover != nullptr && mover->is_cuda()));
  if (mover != nullptr) {
    TESSERA_TRY(parts.arena,
                LandingArena::create(parts.context,
                                     *mover,
                                     landing_slot_bytes(blocks.image_bytes) * options.num_slots,
                                     options.max_regions));
  }
  return std::unique_ptr<KvReceiver>(
      std::make_unique<UcxReceiver>(options, rank, blocks, listener, std::move(parts)));
}

}  // namespace tessera
