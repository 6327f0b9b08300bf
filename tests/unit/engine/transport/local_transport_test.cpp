#include "engine/transport/local_transport.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

HandoffKey key_of(uint64_t low) {
  return {{1, low}, 1};
}

/// Counts what either end is told.
class Log final : public KvSender::Listener, public KvReceiver::Listener {
 public:
  void on_connected(PeerId /*peer*/) override { note("connected", 1); }
  void on_acked(PeerId /*peer*/, const HandoffKey& key, int64_t count) override {
    note("acked " + std::to_string(key.request.low), count);
  }
  void on_drained(PeerId /*peer*/, const HandoffKey& key) override {
    note("drained " + std::to_string(key.request.low), 1);
  }
  void on_parcel_failed(PeerId /*peer*/, const HandoffKey& /*key*/, const Status& /*s*/) override {
    note("parcel_failed", 1);
  }
  void on_peer_failed(PeerId /*peer*/, const Status& /*status*/) override {
    note("peer_failed", 1);
  }
  void on_disconnected(PeerId /*peer*/) override { note("disconnected", 1); }
  void on_landed(int32_t rank, const HandoffKey& key) override {
    note("landed " + std::to_string(key.request.low) + " on " + std::to_string(rank), 1);
  }
  void on_connection_failed(int32_t /*rank*/, uint64_t /*c*/, const Status& /*s*/) override {
    note("connection_failed", 1);
  }
  [[nodiscard]] bool await(const std::string& event, int64_t count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(
        lock, std::chrono::seconds(20), [&] { return counts_[event] >= count; });
  }
  [[nodiscard]] int64_t count(const std::string& event) {
    const std::lock_guard lock(mutex_);
    return counts_[event];
  }

 private:
  void note(const std::string& event, int64_t count) {
    const std::lock_guard lock(mutex_);
    counts_[event] += count;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int64_t> counts_;
};

constexpr int64_t kImage = 501;
constexpr int32_t kBlocks = 50;

class LocalTransportTest : public testing::Test {
 protected:
  LocalTransportTest() {
    for (size_t i = 0; i < source_.size(); ++i) {
      source_[i] = static_cast<std::byte>(i % 251);
    }
  }
  void make(const SenderOptions& sending = {}, const ReceiverOptions& receiving = {}) {
    for (int32_t rank = 0; rank < 2; ++rank) {
      std::vector<std::byte>& cache = caches_[static_cast<size_t>(rank)];
      receivers_.push_back(transport_.create_receiver(
          receiving, rank, {cache.data(), kImage, kImage, kBlocks}, log_));
      regions_.push_back(receivers_.back()->open().value());
    }
    sender_ = transport_.create_sender(sending, log_);
    peer_ = sender_->connect(regions_);
  }
  void expect_all(uint64_t low) {
    std::vector<int32_t> blocks;
    for (int32_t i = 0; i < kBlocks; ++i) {
      blocks.push_back(i);
    }
    for (size_t rank = 0; rank < 2; ++rank) {
      receivers_[rank]->expect(regions_[rank].connection, key_of(low), blocks);
    }
  }
  void send_all(uint64_t low) {
    std::vector<Parcel> parcels;
    for (int32_t i = 0; i < 2 * kBlocks; ++i) {
      parcels.push_back({key_of(low), i % 2, i / 2, source_.data() + (i / 2 * kImage), kImage});
    }
    sender_->send(peer_, std::move(parcels));
  }

  std::vector<std::byte> source_ = std::vector<std::byte>(kImage * kBlocks);
  std::vector<std::byte> caches_[2] = {source_, source_};
  Log log_;
  LocalTransport transport_;
  std::vector<std::unique_ptr<KvReceiver>> receivers_;
  std::vector<LandingRegion> regions_;
  std::unique_ptr<KvSender> sender_;
  PeerId peer_ = 0;
};

TEST_F(LocalTransportTest, BothRanksGetTheirBlocks) {
  make();
  EXPECT_TRUE(log_.await("connected"));
  expect_all(1);
  send_all(1);
  EXPECT_TRUE(log_.await("landed 1 on 0"));
  EXPECT_TRUE(log_.await("landed 1 on 1"));
  EXPECT_TRUE(log_.await("acked 1", 2 * kBlocks));
  EXPECT_EQ(caches_[0], source_);
  EXPECT_EQ(caches_[1], source_);
  const std::vector<LaneStatistics> lanes = sender_->statistics(peer_);
  ASSERT_EQ(lanes.size(), 2U);
  EXPECT_EQ(lanes[1].acked_bytes, kImage * kBlocks);
}

TEST_F(LocalTransportTest, FaultsAreRecoveredFrom) {
  SenderOptions sending;
  sending.resend_period = std::chrono::milliseconds(5);
  sending.faults.drop_ready = 3;
  ReceiverOptions receiving;
  receiving.faults.drop_ack = 4;
  receiving.faults.flip = 6;
  make(sending, receiving);
  expect_all(1);
  send_all(1);
  EXPECT_TRUE(log_.await("acked 1", 2 * kBlocks));
  EXPECT_EQ(caches_[0], source_);
  EXPECT_EQ(caches_[1], source_);
  EXPECT_EQ(receivers_[0]->statistics().refused_parcels, 1);
  EXPECT_EQ(log_.count("landed 1 on 0"), 1);
}

TEST_F(LocalTransportTest, NothingToComeIsToldAtOnce) {
  make();
  receivers_[0]->expect(regions_[0].connection, key_of(9), {-1, -1});
  EXPECT_TRUE(log_.await("landed 9 on 0"));
}

TEST_F(LocalTransportTest, AbortIsAnsweredOnce) {
  make();
  send_all(1);  // nobody expects it
  sender_->abort(peer_, key_of(1));
  EXPECT_TRUE(log_.await("drained 1"));
  sender_->disconnect(peer_);
  EXPECT_TRUE(log_.await("disconnected"));
  EXPECT_EQ(log_.count("drained 1"), 1);
  EXPECT_TRUE(sender_->statistics(peer_).empty());
}

TEST_F(LocalTransportTest, ABrokenWireIsToldToBothEnds) {
  make();
  EXPECT_TRUE(log_.await("connected"));
  transport_.break_connection(regions_[1].connection);
  EXPECT_TRUE(log_.await("connection_failed"));
  sender_->send(peer_, {});
  EXPECT_TRUE(log_.await("peer_failed"));
  sender_->disconnect(peer_);  // too late
  sender_.reset();
  EXPECT_EQ(log_.count("disconnected"), 0);
}

}  // namespace
}  // namespace tessera
