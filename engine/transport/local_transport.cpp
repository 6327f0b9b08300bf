#include "engine/transport/local_transport.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <utility>

#include "engine/base/text.h"
#include "engine/transport/checksum.h"
#include "engine/transport/landing_table.h"
#include "engine/transport/progress_thread.h"
#include "engine/transport/send_peer.h"
#include "engine/transport/sender_accounts.h"

namespace tessera {
namespace {

using Time = ProgressThread::Time;

/// A receiver as the other end of its connections sees it.
class Landing {
 public:
  Landing() = default;
  virtual ~Landing() = default;
  Landing(const Landing&) = delete;
  Landing& operator=(const Landing&) = delete;
  virtual std::vector<Ack> land(uint64_t connection, std::span<const Ready> batch) = 0;
  virtual void tell_failure(uint64_t connection) = 0;
};

/// One region. On the transport's thread.
struct Place {
  Landing* receiver = nullptr;
  std::vector<std::byte> memory;
};

/// A sender's turn.
class Turn {
 public:
  Turn() = default;
  virtual ~Turn() = default;
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  virtual bool turn(Time now) = 0;
  [[nodiscard]] virtual bool is_busy() const = 0;
};

}  // namespace

/// The thread, and who takes part. All but post() and call() on the thread.
class LocalTransport::Hub final : private ProgressThread::Work {
 public:
  Hub() : thread_("kv-local", *this) {}

  void post(std::function<void()> command) { thread_.post(std::move(command)); }
  /// Runs `command` on the thread and waits for its end.
  void call(const std::function<void()>& command) {
    std::promise<void> done;
    post([&] {
      command();
      done.set_value();
    });
    done.get_future().wait();
  }
  void add_place(uint64_t connection, std::shared_ptr<Place> place) {
    places_.emplace(connection, std::move(place));
  }
  void remove_place(uint64_t connection) { places_.erase(connection); }
  void remove_places_of(const Landing& receiver) {
    std::erase_if(places_, [&](const auto& entry) { return entry.second->receiver == &receiver; });
  }
  /// Null when the region is closed or the wire broken.
  [[nodiscard]] Place* find(uint64_t connection) {
    const auto found = places_.find(connection);
    return found == places_.end() ? nullptr : found->second.get();
  }
  void break_place(uint64_t connection) {
    if (Place* place = find(connection)) {
      Landing* receiver = place->receiver;
      places_.erase(connection);
      receiver->tell_failure(connection);
    }
  }
  void add_sender(Turn& sender) { senders_.push_back(&sender); }
  void remove_sender(const Turn& sender) { std::erase(senders_, &sender); }

 private:
  bool turn(Time now) override {
    bool has_acted = false;
    for (Turn* sender : senders_) {
      has_acted = sender->turn(now) || has_acted;
    }
    return has_acted;
  }
  [[nodiscard]] bool is_active() const override { return false; }
  bool arm() override { return true; }
  [[nodiscard]] Time next_timer() const override {
    const bool is_busy = std::any_of(
        senders_.begin(), senders_.end(), [](Turn* sender) { return sender->is_busy(); });
    return is_busy ? Deadline::Clock::now() + std::chrono::milliseconds(10) : Time::max();
  }
  void finish() override {}

  std::map<uint64_t, std::shared_ptr<Place>> places_;  // shared with the command that adds it
  std::vector<Turn*> senders_;
  ProgressThread thread_;  // last: the rest is there when it starts
};

namespace {

template <typename Hub>
class LocalReceiver final : public KvReceiver, private Landing {
 public:
  LocalReceiver(std::shared_ptr<Hub> hub,
                const ReceiverOptions& options,
                int32_t rank,
                const CacheBlocks& blocks,
                Listener& listener)
      : hub_(std::move(hub)),
        options_(options),
        rank_(rank),
        image_bytes_(blocks.image_bytes),
        listener_(listener),
        table_(blocks, options.faults) {}
  LocalReceiver(const LocalReceiver&) = delete;
  LocalReceiver& operator=(const LocalReceiver&) = delete;
  ~LocalReceiver() override {
    hub_->call([this] { hub_->remove_places_of(*this); });
  }

  Result<LandingRegion> open() override {
    if (num_open_.fetch_add(1) >= options_.max_regions) {
      --num_open_;
      return resource_exhausted(str_cat("rank ", rank_, " has too many landing regions"));
    }
    std::vector<std::byte> memory(static_cast<size_t>(image_bytes_ * options_.num_slots));
    LandingRegion region;
    region.rank = rank_;
    region.worker_address = "local";
    region.remote_key = "local";
    region.connection = RequestId::random().high;
    region.base_address = reinterpret_cast<uint64_t>(memory.data());
    region.num_slots = options_.num_slots;
    region.slot_bytes = image_bytes_;
    table_.add_region(region.connection, {memory.data(), region.num_slots, region.slot_bytes});
    auto place = std::make_shared<Place>(Place{this, std::move(memory)});
    hub_->post(
        [this, connection = region.connection, place] { hub_->add_place(connection, place); });
    return region;
  }
  void close(uint64_t connection) override {
    table_.remove_region(connection);
    --num_open_;
    hub_->post([hub = hub_.get(), connection] { hub->remove_place(connection); });
  }
  void expect(uint64_t connection, const HandoffKey& key, std::vector<int32_t> block_ids) override {
    if (table_.expect(connection, key, std::move(block_ids))) {
      hub_->post([this, key] { listener_.on_landed(rank_, key); });
    }
  }
  void forget(const HandoffKey& key) override { table_.forget(key); }
  ReceiverStatistics statistics() const override {
    const LandingCounts counts = table_.counts();
    ReceiverStatistics statistics;
    statistics.landed_bytes = counts.landed_bytes;
    statistics.landed_parcels = counts.landed_parcels;
    statistics.refused_parcels = counts.refused_parcels;
    statistics.open_regions = num_open_;
    statistics.lane = "local";
    return statistics;
  }

 private:
  std::vector<Ack> land(uint64_t connection, std::span<const Ready> batch) override {
    std::vector<Ack> acks;
    for (const Ready& ready : batch) {
      const LandingTable::Answer answer = table_.land(connection, ready);
      if (answer.is_complete) {
        listener_.on_landed(rank_, ready.key);
      }
      if (ready.key == kSelfTestKey || ++num_answers_ != options_.faults.drop_ack) {
        acks.push_back({ready.key, ready.block_index, ready.slot, ready.generation, answer.code});
      }
    }
    return acks;
  }
  void tell_failure(uint64_t connection) override {
    listener_.on_connection_failed(rank_, connection, unavailable("the local wire is broken"));
  }

  const std::shared_ptr<Hub> hub_;  // shared with all that it connects
  const ReceiverOptions options_;
  const int32_t rank_;
  const int64_t image_bytes_;
  Listener& listener_;
  LandingTable table_;
  std::atomic<int32_t> num_open_ = 0;
  int64_t num_answers_ = 0;  // for faults
};

/// One peer of a local sender. On the transport's thread.
template <typename Hub>
class LocalPeer final : private SendPeer::Port {
 public:
  LocalPeer(Hub& hub,
            const SenderAccounts::Opened& account,
            std::vector<LandingRegion> regions,
            const SenderOptions& options,
            KvSender::Listener& listener)
      : hub_(hub),
        counters_(account.counters),
        regions_(std::move(regions)),
        acks_(regions_.size()),
        core_(account.id, regions_, {options, *this, *counters_, listener}) {
    pattern_ = make_self_test_pattern(regions_);
    core_.start_self_test(pattern_, Deadline::Clock::now());
  }
  bool turn(Time now) {
    bool has_acted = core_.poll(now);
    for (size_t rank = 0; rank < acks_.size(); ++rank) {
      const std::vector<Ack> acks = std::exchange(acks_[rank], {});
      core_.handle_acks(rank, acks, now);
      has_acted = has_acted || !acks.empty();
      if (hub_.find(regions_[rank].connection) == nullptr && status_.is_ok()) {
        status_ = unavailable(str_cat("rank ", rank, " closed its landing region"));
      }
    }
    if (status_.is_ok()) {
      status_ = core_.status();
    }
    return has_acted;
  }
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] SendPeer& core() { return core_; }

 private:
  void put(size_t rank, std::span<SlotQueue::Put> puts) override {
    if (Place* place = hub_.find(regions_[rank].connection)) {
      for (SlotQueue::Put& one : puts) {
        std::byte* slot = place->memory.data() + (one.slot * regions_[rank].slot_bytes);
        one.checksum = copy_with_checksum(slot, one.source, one.num_bytes);
      }
    }
    core_.finish_puts(rank, puts);
  }
  void announce(size_t rank, std::span<const Ready> batch) override {
    const uint64_t connection = regions_[rank].connection;
    if (Place* place = hub_.find(connection)) {
      const std::vector<Ack> acks = place->receiver->land(connection, batch);
      acks_[rank].insert(acks_[rank].end(), acks.begin(), acks.end());
    }
  }

  Hub& hub_;
  const std::shared_ptr<LaneCounters> counters_;  // shared with the accounts
  const std::vector<LandingRegion> regions_;
  std::vector<std::vector<Ack>> acks_;  // of each rank, to be handled in the next turn
  std::vector<std::byte> pattern_;
  SendPeer core_;
  Status status_;
};

template <typename Hub>
class LocalSender final : public KvSender, private Turn {
 public:
  LocalSender(std::shared_ptr<Hub> hub, const SenderOptions& options, Listener& listener)
      : hub_(std::move(hub)), options_(options), listener_(listener) {
    hub_->call([this] { hub_->add_sender(*this); });
  }
  LocalSender(const LocalSender&) = delete;
  LocalSender& operator=(const LocalSender&) = delete;
  ~LocalSender() override {
    hub_->call([this] { hub_->remove_sender(*this); });
  }

  Status register_memory(void* /*base*/, int64_t /*num_bytes*/) override { return Status::ok(); }
  PeerId connect(const std::vector<LandingRegion>& regions) override {
    const SenderAccounts::Opened account = accounts_.open(regions.size());
    for (size_t rank = 0; rank < regions.size(); ++rank) {
      account.counters->set_lane(rank, "local");
    }
    hub_->post([this, account, regions] {
      peers_.emplace(
          account.id,
          std::make_unique<LocalPeer<Hub>>(*hub_, account, regions, options_, listener_));
    });
    return account.id;
  }
  void disconnect(PeerId peer) override {
    if (accounts_.begin_leaving(peer)) {
      hub_->post([this, peer] { retire(peer, Status::ok()); });
    }
  }
  void send(PeerId peer, std::vector<Parcel> parcels) override {
    post_to(peer, [parcels = std::move(parcels)](SendPeer& target) { target.send(parcels); });
  }
  void abort(PeerId peer, const HandoffKey& key) override {
    post_to(peer, [key](SendPeer& target) { target.abort(key); });
  }
  std::vector<LaneStatistics> statistics(PeerId peer) const override {
    return accounts_.read(peer);
  }

 private:
  bool turn(Time now) override {
    bool has_acted = false;
    std::vector<std::pair<PeerId, Status>> lost;
    for (const auto& [id, peer] : peers_) {
      has_acted = peer->turn(now) || has_acted;
      if (!peer->status().is_ok()) {
        lost.emplace_back(id, peer->status());
      }
    }
    for (const auto& [id, status] : lost) {
      retire(id, status);
    }
    return has_acted;
  }
  bool is_busy() const override {
    return std::any_of(peers_.begin(), peers_.end(), [](const auto& entry) {
      return entry.second->core().is_busy();
    });
  }
  void retire(PeerId peer, const Status& status) {
    if (peers_.erase(peer) != 0) {
      accounts_.close(peer, status, listener_);
    }
  }
  template <typename Action>
  void post_to(PeerId id, Action action) {
    hub_->post([this, id, action = std::move(action)] {
      const auto found = peers_.find(id);
      if (found != peers_.end()) {
        action(found->second->core());
      }
    });
  }

  const std::shared_ptr<Hub> hub_;  // shared with all that it connects
  const SenderOptions options_;
  Listener& listener_;
  SenderAccounts accounts_;
  std::map<PeerId, std::unique_ptr<LocalPeer<Hub>>> peers_;  // on the transport's thread
};

}  // namespace

LocalTransport::LocalTransport() : hub_(std::make_shared<Hub>()) {}
LocalTransport::~LocalTransport() = default;

std::unique_ptr<KvSender> LocalTransport::create_sender(const SenderOptions& options,
                                                        KvSender::Listener& listener) {
  return std::make_unique<LocalSender<Hub>>(hub_, options, listener);
}

std::unique_ptr<KvReceiver> LocalTransport::create_receiver(const ReceiverOptions& options,
                                                            int32_t rank,
                                                            const CacheBlocks& blocks,
                                                            KvReceiver::Listener& listener) {
  return std::make_unique<LocalReceiver<Hub>>(hub_, options, rank, blocks, listener);
}

void LocalTransport::break_connection(uint64_t connection) {
  hub_->post([hub = hub_.get(), connection] { hub->break_place(connection); });
}

}  // namespace tessera
