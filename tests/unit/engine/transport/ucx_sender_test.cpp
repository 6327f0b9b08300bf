// A sender of images in a fake device's memory, and its receivers, in one process: what becomes of
// regions and sources when the device does not do its part.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/transport/ucx_transport.h"
#include "tests/support/fake_image_mover.h"

namespace tessera {
namespace {

constexpr std::chrono::seconds kPatience{20};
constexpr int64_t kImageBytes = 4096;
constexpr int64_t kNumBlocks = 16;

class Events final : public KvSender::Listener, public KvReceiver::Listener {
 public:
  void on_connected(PeerId /*peer*/) override { note("connected"); }
  void on_acked(PeerId /*peer*/, const HandoffKey& /*key*/, int64_t /*count*/) override {
    note("acked");
  }
  void on_drained(PeerId /*peer*/, const HandoffKey& /*key*/) override { note("drained"); }
  void on_parcel_failed(PeerId /*p*/, const HandoffKey& /*key*/, const Status& /*s*/) override {
    note("parcel_failed");
  }
  void on_peer_failed(PeerId /*peer*/, const Status& /*status*/) override { note("peer_failed"); }
  void on_disconnected(PeerId /*peer*/) override { note("disconnected"); }
  void on_landed(int32_t /*rank*/, const HandoffKey& /*key*/) override {}
  void on_connection_failed(int32_t /*rank*/, uint64_t /*c*/, const Status& /*s*/) override {}

  [[nodiscard]] bool await(const std::string& event, int64_t count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] {
      return std::count(events_.begin(), events_.end(), event) >= count;
    });
  }
  [[nodiscard]] bool has(const std::string& event) {
    const std::lock_guard lock(mutex_);
    return std::count(events_.begin(), events_.end(), event) > 0;
  }

 private:
  void note(const std::string& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
};

template <typename Condition>
[[nodiscard]] bool await(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  return condition();
}

/// One decode rank.
struct Rank {
  Rank(int32_t rank, KvReceiver::Listener& listener) : cache(mover.allocate(kBytes)) {
    ReceiverOptions options;
    options.max_regions = 2;
    options.max_revoked_regions = 2;
    const CacheBlocks blocks{
        static_cast<std::byte*>(cache.data()), kImageBytes, kImageBytes, kNumBlocks};
    receiver = create_ucx_receiver(options, rank, blocks, listener, &mover).value();
  }
  void close(const LandingRegion& region) {
    receiver->close(region.connection);
    EXPECT_TRUE(await([&] { return receiver->statistics().open_regions == 0; }));
  }

  static constexpr int64_t kBytes = kImageBytes * kNumBlocks;
  testing::FakeImageMover mover;
  kernels::DeviceBuffer cache;
  std::unique_ptr<KvReceiver> receiver;
};

class UcxSenderTest : public ::testing::Test {
 protected:
  UcxSenderTest() : images_(mover_.allocate(Rank::kBytes)) {
    options_.leave_timeout = std::chrono::milliseconds(100);
    options_.allow_staged_handoff = true;
  }
  static void SetUpTestSuite() {
    setenv("UCX_TLS", "tcp,self", 1);
    setenv("UCX_NET_DEVICES", "lo", 1);
  }
  void start_sender() {
    sender_ = create_ucx_sender(options_, events_, &mover_).value();
    ASSERT_TRUE(sender_->register_memory(images_.data(), Rank::kBytes).is_ok());
  }
  /// Sends images that the device begins to pack and does not finish.
  PeerId send_to_stalled_device() {
    const PeerId peer = sender_->connect({region_});
    EXPECT_TRUE(events_.await("connected"));
    mover_.stall();
    sender_->send(peer, {{{{1, 1}, 1}, 0, 0, images_.data(), kImageBytes}});
    EXPECT_TRUE(await([this] { return mover_.num_stalled_questions() > 0; }));
    return peer;
  }

  Events events_;
  testing::FakeImageMover mover_;
  kernels::DeviceBuffer images_;
  SenderOptions options_;
  Rank rank_{0, events_};
  LandingRegion region_ = rank_.receiver->open().value();
  std::unique_ptr<KvSender> sender_;
};

TEST_F(UcxSenderTest, ALinkThatFailsBeforeItsFirstPutCostsNoRankARegion) {
  Rank other(1, events_);
  rank_.close(region_);  // nobody came: this one is revoked
  start_sender();
  mover_.fill();
  for (int round = 1; round <= 4; ++round) {  // more than there are
    const LandingRegion first = rank_.receiver->open().value();
    const LandingRegion second = other.receiver->open().value();
    static_cast<void>(sender_->connect({first, second}));
    EXPECT_TRUE(events_.await("peer_failed", round));
    rank_.close(first);
    other.close(second);
  }
  EXPECT_FALSE(events_.has("connected"));
  EXPECT_EQ(rank_.receiver->statistics().revoked_regions, 1);
  EXPECT_EQ(other.receiver->statistics().revoked_regions, 0);
}

TEST_F(UcxSenderTest, ASelfTestThatFailedCostsNoRegion) {
  options_.min_self_test_mb_per_s = 1'000'000'000;
  start_sender();
  static_cast<void>(sender_->connect({region_}));
  EXPECT_TRUE(events_.await("peer_failed"));
  rank_.close(region_);
  EXPECT_EQ(rank_.receiver->statistics().revoked_regions, 0);
}

TEST_F(UcxSenderTest, SourcesAreNotReportedFreeBeforeTheDeviceHasPackedThem) {
  start_sender();
  const PeerId peer = send_to_stalled_device();
  rank_.close(region_);
  sender_->disconnect(peer);
  // In vain: of the ring's batch while it leaves, of the mark behind it from then on.
  EXPECT_TRUE(await([this] { return mover_.num_stalled_marks() > 2; }));
  EXPECT_FALSE(events_.has("disconnected"));
  mover_.resume();
  EXPECT_TRUE(events_.await("disconnected"));
  EXPECT_TRUE(mover_.is_idle());
}

TEST_F(UcxSenderTest, SourcesOfABrokenDeviceAreKeptAndTheSenderStillEnds) {
  start_sender();
  const PeerId peer = send_to_stalled_device();
  mover_.fail();
  // The ring's question, then one for a mark after the other.
  EXPECT_TRUE(await([this] { return mover_.num_failures() >= 3; }));
  sender_->disconnect(peer);
  sender_.reset();
  EXPECT_FALSE(events_.has("peer_failed"));
  EXPECT_FALSE(events_.has("disconnected"));
}

}  // namespace
}  // namespace tessera
