// The transport over UCX between two processes, on each kind of lane that works on one host.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>

#include "engine/transport/ucx_transport.h"
#include "tests/unit/engine/transport/child_process.h"

namespace tessera {
namespace {

constexpr std::chrono::seconds kPatience{20};

HandoffKey key_of(uint64_t low) {
  return {{1, low}, 1};
}

class Landings final : public KvReceiver::Listener {
 public:
  void on_landed(int32_t /*rank*/, const HandoffKey& key) override {
    const std::lock_guard lock(mutex_);
    ++landed_[key.request.low];
    changed_.notify_all();
  }
  void on_connection_failed(int32_t /*rank*/,
                            uint64_t connection,
                            const Status& /*status*/) override {
    const std::lock_guard lock(mutex_);
    ++failed_[connection];
    changed_.notify_all();
  }
  [[nodiscard]] bool await_landed(uint64_t low) { return await(landed_, low); }
  [[nodiscard]] bool await_failed(uint64_t connection) { return await(failed_, connection); }

 private:
  bool await(std::map<uint64_t, int>& counts, uint64_t id) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return counts[id] == 1; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, int> landed_;
  std::map<uint64_t, int> failed_;
};

/// Sets what both processes tell UCX; the parameter is the value of UCX_TLS.
class UcxProcessTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    setenv("UCX_TLS", GetParam(), 1);
    setenv("UCX_NET_DEVICES", "lo", 1);
  }
};

/// A receiver here with a cache of its own.
struct Receiver {
  Receiver(int64_t image, int64_t blocks, const ReceiverOptions& options = {})
      : image_bytes(image), cache(static_cast<size_t>(image * blocks)) {
    const CacheBlocks memory{
        reinterpret_cast<std::byte*>(cache.data()), image_bytes, image_bytes, blocks};
    receiver = create_ucx_receiver(options, 0, memory, landings).value();
  }
  [[nodiscard]] bool holds(int32_t block, uint64_t seed, int32_t index) const {
    const auto size = static_cast<size_t>(image_bytes);
    return holds_image(
        std::span(cache).subspan(static_cast<size_t>(block) * size, size), seed, index);
  }
  [[nodiscard]] bool holds_all(int32_t count, uint64_t seed) const {
    for (int32_t i = 0; i < count; ++i) {
      if (!holds(i, seed, i)) {
        return false;
      }
    }
    return true;
  }
  /// Block i for block index i.
  void expect(uint64_t connection, uint64_t low, int32_t count) const {
    std::vector<int32_t> blocks;
    for (int32_t i = 0; i < count; ++i) {
      blocks.push_back(i);
    }
    receiver->expect(connection, key_of(low), std::move(blocks));
  }
  [[nodiscard]] bool await_regions(int64_t open, int64_t revoked) const {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      const ReceiverStatistics now = receiver->statistics();
      if (now.open_regions == open && now.revoked_regions == revoked) {
        return true;
      }
      std::this_thread::yield();
    }
    return false;
  }

  int64_t image_bytes;
  std::vector<char> cache;
  Landings landings;
  std::unique_ptr<KvReceiver> receiver;
};

struct Sender {
  Sender(int64_t image, int32_t blocks, uint64_t seed, const std::string& faults = "")
      : process(
            {"sender", std::to_string(image), std::to_string(blocks), std::to_string(seed), faults},
            {}) {}
  void connect(const LandingRegion& region, int peer = 1) {
    process.lines().write("connect " + to_text(region));
    process.expect_line("connected " + std::to_string(peer));
  }
  void send(uint64_t low, int32_t first, int32_t count) {
    process.lines().write("send " + std::to_string(low) + " " + std::to_string(first) + " " +
                          std::to_string(count));
  }
  void disconnect(int peer = 1) {
    process.lines().write("disconnect");
    EXPECT_TRUE(process.await_line("disconnected " + std::to_string(peer)));
  }
  ChildProcess process;
};

TEST_P(UcxProcessTest, BlocksArriveExactly) {
  constexpr int32_t kBlocks = 1500;
  constexpr int64_t kImage = 12345;
  Receiver receiver(kImage, kBlocks);
  Sender sender(kImage, kBlocks, 7);
  const LandingRegion region = receiver.receiver->open().value();
  sender.connect(region);
  receiver.expect(region.connection, 1, kBlocks);
  sender.send(1, 0, kBlocks);
  // Read at once: more lines than the channel holds would stop the sender's thread.
  EXPECT_TRUE(sender.process.await_line("acked 1 " + std::to_string(kBlocks)));
  EXPECT_TRUE(receiver.landings.await_landed(1));
  EXPECT_TRUE(receiver.holds_all(kBlocks, 7));
  const ReceiverStatistics statistics = receiver.receiver->statistics();
  EXPECT_EQ(statistics.landed_parcels, kBlocks);
  EXPECT_EQ(statistics.landed_bytes, kBlocks * kImage);
  EXPECT_EQ(statistics.refused_parcels, 0);
  EXPECT_FALSE(statistics.lane.empty());
  sender.disconnect();
  receiver.receiver->close(region.connection);
  EXPECT_TRUE(receiver.await_regions(0, 0));
  EXPECT_EQ(sender.process.leave(), 0);
}

TEST_P(UcxProcessTest, LostAnnouncementsAndAnswersAreRepeated) {
  constexpr int32_t kBlocks = 60;
  ReceiverOptions options;
  options.faults.drop_ack = 7;
  Receiver receiver(4099, kBlocks, options);
  Sender sender(4099, kBlocks, 3, "drop_ready=5");
  const LandingRegion region = receiver.receiver->open().value();
  sender.connect(region);
  receiver.expect(region.connection, 1, kBlocks);
  sender.send(1, 0, kBlocks);
  EXPECT_TRUE(sender.process.await_line("acked 1 60"));
  EXPECT_TRUE(receiver.landings.await_landed(1));
  EXPECT_TRUE(receiver.holds_all(kBlocks, 3));
  EXPECT_EQ(receiver.receiver->statistics().landed_parcels, kBlocks);
}

TEST_P(UcxProcessTest, ADamagedImageIsPutAgain) {
  constexpr int32_t kBlocks = 60;
  ReceiverOptions options;
  options.faults.flip = 11;
  Receiver receiver(70001, kBlocks, options);
  Sender sender(70001, kBlocks, 4);
  const LandingRegion region = receiver.receiver->open().value();
  sender.connect(region);
  receiver.expect(region.connection, 1, kBlocks);
  sender.send(1, 0, kBlocks);
  EXPECT_TRUE(sender.process.await_line("acked 1 60"));
  EXPECT_TRUE(receiver.landings.await_landed(1));
  EXPECT_TRUE(receiver.holds_all(kBlocks, 4));
  EXPECT_EQ(receiver.receiver->statistics().refused_parcels, 1);
}

TEST_P(UcxProcessTest, ParcelsThatComeEarlyWaitForTheirExpectation) {
  Receiver receiver(9001, 4);
  Sender sender(9001, 4, 5);
  const LandingRegion region = receiver.receiver->open().value();
  sender.connect(region);
  sender.send(1, 0, 4);
  sender.send(2, 0, 1);
  receiver.expect(region.connection, 2, 1);
  EXPECT_TRUE(receiver.landings.await_landed(2));
  receiver.receiver->forget(key_of(2));
  receiver.expect(region.connection, 1, 4);
  EXPECT_TRUE(receiver.landings.await_landed(1));
  EXPECT_TRUE(receiver.holds_all(4, 5));
}

TEST_P(UcxProcessTest, ForgottenKeysAreDroppedAndAbortedOnesDrained) {
  constexpr int32_t kBlocks = 200;
  Receiver receiver(65536, kBlocks);
  Sender sender(65536, kBlocks, 6);
  const LandingRegion region = receiver.receiver->open().value();
  sender.connect(region);
  receiver.expect(region.connection, 1, kBlocks);
  receiver.receiver->forget(key_of(1));
  const std::vector<char> before = receiver.cache;
  sender.send(1, 0, kBlocks);
  sender.process.lines().write("abort 1");
  EXPECT_TRUE(sender.process.await_line("drained 1"));
  receiver.expect(region.connection, 2, 1);
  sender.send(2, 0, 1);
  EXPECT_TRUE(sender.process.await_line("acked 2 1"));
  EXPECT_TRUE(receiver.holds(0, 6, 0));
  EXPECT_TRUE(std::equal(before.begin() + 65536, before.end(), receiver.cache.begin() + 65536));
}

TEST_P(UcxProcessTest, AKilledSenderIsReportedAndTheNextOneServed) {
  constexpr int32_t kBlocks = 400;
  constexpr int64_t kImage = 300001;
  Receiver receiver(kImage, kBlocks);
  for (uint64_t round = 1; round <= 3; ++round) {
    const LandingRegion region = receiver.receiver->open().value();
    Sender sender(kImage, kBlocks, round);
    sender.connect(region);
    receiver.expect(region.connection, round, kBlocks);
    sender.send(round, 0, kBlocks);
    EXPECT_FALSE(sender.process.lines().read(kPatience).empty());  // some have been answered
    sender.process.kill();
    EXPECT_TRUE(receiver.landings.await_failed(region.connection));
    receiver.receiver->close(region.connection);
    receiver.receiver->forget(key_of(round));
    EXPECT_TRUE(receiver.await_regions(0, static_cast<int64_t>(round)));
  }
  const LandingRegion region = receiver.receiver->open().value();
  Sender sender(kImage, 20, 77);
  sender.connect(region);
  receiver.expect(region.connection, 77, 20);
  sender.send(77, 0, 20);
  EXPECT_TRUE(receiver.landings.await_landed(77));
  EXPECT_TRUE(receiver.holds_all(20, 77));
}

TEST_P(UcxProcessTest, AStoppedSenderWritesNothingThatIsUsedAfterItsRegionIsRevoked) {
  constexpr int32_t kBlocks = 400;
  constexpr int64_t kImage = 300001;
  Receiver receiver(kImage, kBlocks);
  const LandingRegion region = receiver.receiver->open().value();
  Sender stopped(kImage, kBlocks, 8);
  stopped.connect(region);
  receiver.expect(region.connection, 1, kBlocks);
  stopped.send(1, 0, kBlocks);
  EXPECT_FALSE(stopped.process.lines().read(kPatience).empty());
  stopped.process.send(SIGSTOP);
  receiver.receiver->close(region.connection);
  receiver.receiver->forget(key_of(1));
  EXPECT_TRUE(receiver.await_regions(0, 1));

  // Others use the cache, and whatever memory was freed, while the first goes on writing.
  const LandingRegion next_region = receiver.receiver->open().value();
  Sender next(kImage, kBlocks, 9);
  next.connect(next_region);
  receiver.expect(next_region.connection, 2, kBlocks);
  next.send(2, 0, kBlocks / 2);
  stopped.process.send(SIGCONT);
  next.send(2, kBlocks / 2, kBlocks / 2);
  EXPECT_TRUE(receiver.landings.await_landed(2));
  // Over sockets it learns that it was cut off; over shared memory it has to be told.
  const bool has_sockets = std::string(GetParam()).find("tcp") != std::string::npos;
  if (!has_sockets) {
    stopped.process.lines().write("disconnect");
  }
  EXPECT_TRUE(stopped.process.await_line(has_sockets ? "peer_failed 1" : "disconnected 1"));
  EXPECT_TRUE(receiver.holds_all(kBlocks, 9));
  EXPECT_EQ(receiver.receiver->statistics().refused_parcels, 0);
}

TEST_P(UcxProcessTest, AStoppedSenderDoesNotBlockAnother) {
  constexpr int32_t kBlocks = 100;
  Receiver receiver(300001, 2 * kBlocks);
  const LandingRegion region = receiver.receiver->open().value();
  const LandingRegion other_region = receiver.receiver->open().value();
  Sender stopped(300001, kBlocks, 1);
  Sender other(300001, kBlocks, 2);
  stopped.connect(region);
  other.connect(other_region);
  receiver.expect(region.connection, 1, kBlocks);
  stopped.send(1, 0, kBlocks);
  EXPECT_FALSE(stopped.process.lines().read(kPatience).empty());
  stopped.process.send(SIGSTOP);
  std::vector<int32_t> blocks;
  for (int32_t i = 0; i < kBlocks; ++i) {
    blocks.push_back(kBlocks + i);
  }
  receiver.receiver->expect(other_region.connection, key_of(2), blocks);
  other.send(2, 0, kBlocks);
  EXPECT_TRUE(receiver.landings.await_landed(2));
  for (int32_t i = 0; i < kBlocks; ++i) {
    EXPECT_TRUE(receiver.holds(kBlocks + i, 2, i)) << i;
  }
  stopped.process.send(SIGCONT);
  EXPECT_TRUE(receiver.landings.await_landed(1));
  EXPECT_TRUE(receiver.holds_all(kBlocks, 1));
}

TEST_P(UcxProcessTest, ReconnectsAfterClose) {
  Receiver receiver(50001, 30);
  Sender sender(50001, 30, 2);
  for (uint64_t round = 1; round <= 5; ++round) {
    const LandingRegion region = receiver.receiver->open().value();
    sender.connect(region, static_cast<int>(round));
    receiver.expect(region.connection, round, 30);
    sender.send(round, 0, 30);
    EXPECT_TRUE(receiver.landings.await_landed(round));
    sender.disconnect(static_cast<int>(round));
    receiver.receiver->close(region.connection);
    EXPECT_TRUE(receiver.await_regions(0, 0));
  }
  EXPECT_TRUE(receiver.holds_all(30, 2));
}

/// What a sender here has been told.
class SenderLog final : public KvSender::Listener {
 public:
  void on_connected(PeerId peer) override { note("connected", peer); }
  void on_acked(PeerId peer, const HandoffKey& /*key*/, int64_t count) override {
    note("acked", peer, count);
  }
  void on_drained(PeerId peer, const HandoffKey& /*key*/) override { note("drained", peer); }
  void on_parcel_failed(PeerId peer, const HandoffKey& /*key*/, const Status& /*s*/) override {
    note("parcel_failed", peer);
  }
  void on_peer_failed(PeerId peer, const Status& status) override {
    note(std::string("peer_failed ") + std::string(status_code_name(status.code())), peer);
  }
  void on_disconnected(PeerId peer) override { note("disconnected", peer); }
  [[nodiscard]] bool await(const std::string& event, PeerId peer, int64_t count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return counts_[{event, peer}] >= count; });
  }
  [[nodiscard]] int64_t count(const std::string& event, PeerId peer) {
    const std::lock_guard lock(mutex_);
    return counts_[{event, peer}];
  }

 private:
  void note(const std::string& event, PeerId peer, int64_t count = 1) {
    const std::lock_guard lock(mutex_);
    counts_[{event, peer}] += count;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<std::string, PeerId>, int64_t> counts_;
};

struct RemoteReceiver {
  RemoteReceiver(int64_t image, int32_t blocks)
      : process({"receiver", std::to_string(image), std::to_string(blocks), ""}, {}) {}
  LandingRegion open() {
    process.lines().write("open");
    return region_from(process.lines().read(kPatience));
  }
  void expect(uint64_t connection, uint64_t low, int32_t count) {
    process.lines().write("expect " + std::to_string(connection) + " " + std::to_string(low) + " " +
                          std::to_string(count));
    process.expect_line("expected");
  }
  ChildProcess process;
};

std::vector<Parcel> parcels_of(uint64_t low,
                               std::vector<char>& memory,
                               int64_t image,
                               int32_t count) {
  std::vector<Parcel> parcels;
  for (int32_t i = 0; i < count; ++i) {
    parcels.push_back({key_of(low), 0, i, memory.data() + (image * i), image});
  }
  return parcels;
}

TEST_P(UcxProcessTest, AKilledReceiverFailsItsPeerOnlyAndFreesTheSources) {
  constexpr int32_t kBlocks = 100;
  constexpr int64_t kImage = 300001;
  std::vector<char> memory(kImage * kBlocks, 'x');
  SenderLog log;
  const std::unique_ptr<KvSender> sender = create_ucx_sender({}, log).value();
  ASSERT_TRUE(sender->register_memory(memory.data(), kImage * kBlocks).is_ok());
  RemoteReceiver killed(kImage, kBlocks);
  RemoteReceiver other(kImage, kBlocks);
  const LandingRegion killed_region = killed.open();
  const LandingRegion other_region = other.open();
  const PeerId first = sender->connect({killed_region});
  const PeerId second = sender->connect({other_region});
  ASSERT_TRUE(log.await("connected", first));
  ASSERT_TRUE(log.await("connected", second));
  killed.expect(killed_region.connection, 1, kBlocks);
  other.expect(other_region.connection, 2, kBlocks);
  sender->send(first, parcels_of(1, memory, kImage, kBlocks));
  EXPECT_TRUE(log.await("acked", first));
  killed.process.kill();
  sender->send(second, parcels_of(2, memory, kImage, kBlocks));
  EXPECT_TRUE(log.await("peer_failed UNAVAILABLE", first));
  EXPECT_TRUE(log.await("acked", second, kBlocks));
  EXPECT_TRUE(sender->statistics(first).empty());
  const std::vector<LaneStatistics> lanes = sender->statistics(second);
  ASSERT_EQ(lanes.size(), 1U);
  EXPECT_EQ(lanes[0].acked_bytes, kImage * kBlocks);
  EXPECT_EQ(lanes[0].posted_bytes, kImage * kBlocks);
  sender->disconnect(second);
  EXPECT_TRUE(log.await("disconnected", second));
}

TEST_P(UcxProcessTest, AReceiverThatNeverAnswersFailsInTime) {
  SenderLog log;
  SenderOptions options;
  options.connect_timeout = std::chrono::milliseconds(300);
  const std::unique_ptr<KvSender> sender = create_ucx_sender(options, log).value();
  RemoteReceiver receiver(5000, 1);
  const LandingRegion region = receiver.open();
  receiver.process.send(SIGSTOP);
  const PeerId peer = sender->connect({region});
  EXPECT_TRUE(log.await("peer_failed DEADLINE_EXCEEDED", peer));
}

TEST_P(UcxProcessTest, AnAbortIsAnsweredWhileTheReceiverStandsStill) {
  std::vector<char> memory(300001, 'x');
  SenderLog log;
  const std::unique_ptr<KvSender> sender = create_ucx_sender({}, log).value();
  ASSERT_TRUE(sender->register_memory(memory.data(), 300001).is_ok());
  RemoteReceiver receiver(300001, 1);
  const PeerId peer = sender->connect({receiver.open()});
  ASSERT_TRUE(log.await("connected", peer));
  receiver.process.send(SIGSTOP);
  sender->send(peer, parcels_of(1, memory, 300001, 1));
  sender->abort(peer, key_of(1));
  if (std::string(GetParam()).find("sysv") != std::string::npos) {
    // The sender has the slots mapped and stored the image itself.
    EXPECT_TRUE(log.await("drained", peer));
  }
  // Else the put is under way and reads the source: only the end of the connection ends it.
  sender->disconnect(peer);
  EXPECT_TRUE(log.await("disconnected", peer));
  EXPECT_EQ(log.count("acked", peer), 0);
}

TEST_P(UcxProcessTest, ASlowLaneIsRefused) {
  SenderLog log;
  SenderOptions options;
  options.min_self_test_mb_per_s = 1'000'000'000;
  const std::unique_ptr<KvSender> sender = create_ucx_sender(options, log).value();
  RemoteReceiver receiver(100000, 1);
  const PeerId peer = sender->connect({receiver.open()});
  EXPECT_TRUE(log.await("peer_failed UNAVAILABLE", peer));
  EXPECT_EQ(log.count("connected", peer), 0);
}

INSTANTIATE_TEST_SUITE_P(Lanes,
                         UcxProcessTest,
                         testing::Values("tcp,self", "sysv,posix,self", "posix,self"),
                         [](const auto& lanes) {
                           const std::string name = lanes.param;
                           return name.substr(0, name.find(','));
                         });

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() > 2 && arguments[0] == "3") {
    const std::vector<std::string> rest(arguments.begin() + 2, arguments.end());
    return tessera::run_child(std::stoi(arguments[0]), arguments[1], rest);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
