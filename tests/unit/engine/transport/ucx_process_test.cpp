// The transport over UCX between two processes, on each kind of lane that works on one host.
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
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
  EXPECT_TRUE(receiver.landings.await_landed(1));
  EXPECT_TRUE(sender.process.await_line("acked 1 " + std::to_string(kBlocks)));
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

INSTANTIATE_TEST_SUITE_P(Lanes,
                         UcxProcessTest,
                         testing::Values("tcp,self", "sysv,posix,self"),
                         [](const auto& lanes) {
                           const std::string name = lanes.param;
                           return name.substr(0, name.find(','));
                         });

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  setenv("UCX_HANDLE_ERRORS", "none", 1);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() > 2 && (arguments[1] == "sender" || arguments[1] == "receiver")) {
    const std::vector<std::string> rest(arguments.begin() + 2, arguments.end());
    const int fd = std::stoi(arguments[0]);
    return arguments[1] == "sender" ? tessera::run_sender_child(fd, rest)
                                    : tessera::run_receiver_child(fd, rest);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
