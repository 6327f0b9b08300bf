// The transport between two processes whose images lie in a device's memory: of a fake device, and,
// where this is built for GPUs, of those.
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/engine/transport/child_process.h"
#ifdef TESSERA_HAS_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace tessera {
namespace {

constexpr std::chrono::seconds kPatience{20};

/// Where the images are, and the lanes (empty: UCX's choice).
struct Way {
  std::string source;
  std::string target;
  std::string lanes;

  [[nodiscard]] bool is_direct() const {
    const bool is_source_cuda = source.starts_with("cuda:");
    return is_source_cuda == target.starts_with("cuda:") && (!is_source_cuda || lanes.empty());
  }
};

class DeviceProcessTest : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (!GetParam().lanes.empty()) {
      settings_ = {"UCX_TLS=" + GetParam().lanes, "UCX_NET_DEVICES=lo"};
    }
  }

  std::vector<std::string> settings_;
};

/// Into a device's memory, whose regions are kept for the next worker.
class DeviceTargetTest : public DeviceProcessTest {};

#ifdef TESSERA_HAS_CUDA  // every lane of a fake device is direct
/// Into it through the host.
class StagedTargetTest : public DeviceProcessTest {};
#endif

TEST_P(DeviceProcessTest, BlocksArriveExactly) {
  constexpr int32_t kBlocks = 300;
  const std::string image = "300032";
  const std::string blocks = std::to_string(kBlocks);
  ChildProcess receiver({"receiver", image, blocks, "flip=11", GetParam().target}, settings_);
  ChildProcess sender({"sender", image, blocks, "7", "drop_ready=5", GetParam().source, "staged"},
                      settings_);
  receiver.lines().write("open");
  const std::string region = receiver.lines().read(kPatience);
  sender.lines().write("connect " + region);
  sender.expect_line("connected 1");
  receiver.lines().write("expect " + std::to_string(region_from(region).connection) + " 1 " +
                         blocks);
  receiver.expect_line("expected");
  sender.lines().write("send 1 0 " + blocks);
  EXPECT_TRUE(sender.await_line("acked 1 " + blocks));
  receiver.expect_line("landed 1");
  receiver.lines().write("count 7 " + blocks);
  receiver.expect_line("holds " + blocks);
  sender.lines().write("disconnect");
  EXPECT_TRUE(sender.await_line("disconnected 1"));
  EXPECT_EQ(sender.leave(), 0);
  EXPECT_EQ(receiver.leave(), 0);
}

TEST_P(DeviceTargetTest, RegionsOfWorkersThatSaidGoodbyeAreUsedAgainOthersNever) {
  const std::string target = GetParam().target;
  ChildProcess receiver({"receiver", "50048", "4", "", target}, settings_);
  ChildProcess sender({"sender", "50048", "4", "1", "", GetParam().source, "staged"}, settings_);
  for (int round = 1; round <= 9; ++round) {  // more than there are
    receiver.lines().write("open");
    const std::string region = receiver.lines().read(kPatience);
    sender.lines().write("connect " + region);
    sender.expect_line("connected " + std::to_string(round));
    sender.lines().write("disconnect");
    EXPECT_TRUE(sender.await_line("disconnected " + std::to_string(round)));
    receiver.lines().write("close " + std::to_string(region_from(region).connection));
    receiver.expect_line("closed");
  }
  for (int killed = 0; killed < 4; ++killed) {
    ChildProcess other({"sender", "50048", "4", "1", "", GetParam().source, "staged"}, settings_);
    receiver.lines().write("open");
    const std::string region = receiver.lines().read(kPatience);
    other.lines().write("connect " + region);
    other.expect_line("connected 1");
    other.kill();
    EXPECT_TRUE(receiver.await_line("connection_failed"));
    receiver.lines().write("close " + std::to_string(region_from(region).connection));
    receiver.expect_line("closed");
  }
  receiver.lines().write("open");
  receiver.expect_line("RESOURCE_EXHAUSTED");
}

TEST_P(DeviceProcessTest, ASourceMayBeWrittenAsSoonAsItsPutIsComplete) {
  const std::string num_bytes = std::to_string(8 << 20);
  ChildProcess target({"target", num_bytes, "21", GetParam().target}, settings_);
  ChildProcess source({"put", num_bytes, "21", GetParam().source}, settings_);
  source.lines().write(target.lines().read(kPatience));
  source.expect_line("poisoned");
  RecordProperty("lane", source.lines().read(kPatience));
  target.lines().write("look");
  target.expect_line("whole");
}

TEST_P(DeviceProcessTest, MemoryThatHasToBeStagedForIsRefusedUnlessAllowed) {
  ChildProcess receiver({"receiver", "4096", "1", "", GetParam().target}, settings_);
  ChildProcess sender({"sender", "4096", "1", "1", "", GetParam().source}, settings_);
  receiver.lines().write("open");
  sender.lines().write("connect " + receiver.lines().read(kPatience));
  sender.expect_line(GetParam().is_direct() ? "connected 1" : "peer_failed 1");
}

#ifdef TESSERA_HAS_CUDA
TEST_P(StagedTargetTest, WorkersThatWereRefusedCostNoRegion) {
  const std::string target = GetParam().target;
  ChildProcess receiver({"receiver", "50048", "4", "", target}, settings_);
  ChildProcess refused({"sender", "50048", "4", "1", "", GetParam().source}, settings_);
  for (int round = 1; round <= 6; ++round) {  // more than there are
    receiver.lines().write("open");
    const std::string region = receiver.lines().read(kPatience);
    refused.lines().write("connect " + region);
    refused.expect_line("peer_failed " + std::to_string(round));
    receiver.lines().write("close " + std::to_string(region_from(region).connection));
    receiver.expect_line("closed");
  }
  ChildProcess good({"sender", "50048", "4", "1", "", GetParam().source, "staged"}, settings_);
  receiver.lines().write("open");
  good.lines().write("connect " + receiver.lines().read(kPatience));
  good.expect_line("connected 1");
}
#endif

TEST(UcxCudaTest, ALibraryWithoutCudaIsRefusedAtStart) {
  ChildProcess sender({"sender", "4096", "1", "1", "", "fake-cuda"},
                      {"UCX_TLS=tcp,self", "UCX_NET_DEVICES=lo"});
  sender.expect_line("refused FAILED_PRECONDITION");
}

std::vector<Way> ways() {
#ifdef TESSERA_HAS_CUDA
  std::vector<Way> ways = {{"cuda:0", "cuda:0", ""},
                           {"cuda:0", "cuda:0", "tcp,cuda_copy,self"},
                           {"cuda:0", "host", ""},
                           {"host", "cuda:0", ""}};
  if (kernels::cuda::num_cuda_devices() > 1) {
    ways.push_back({"cuda:0", "cuda:1", ""});
  }
  return ways;
#else
  return {{"fake", "fake", "tcp,self"},
          {"fake", "fake", "sysv,posix,self"},
          {"fake", "host", "sysv,posix,self"},
          {"host", "fake", "tcp,self"}};
#endif
}

template <typename Predicate>
std::vector<Way> ways_that(const Predicate& predicate) {
  std::vector<Way> all = ways();
  std::erase_if(all, [&](const Way& way) { return !predicate(way); });
  return all;
}

std::string name_of(const testing::TestParamInfo<Way>& way) {
  std::string name = way.param.source + "To" + way.param.target + way.param.lanes.substr(0, 4);
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name;
}

INSTANTIATE_TEST_SUITE_P(Ways, DeviceProcessTest, testing::ValuesIn(ways()), name_of);
INSTANTIATE_TEST_SUITE_P(Ways,
                         DeviceTargetTest,
                         testing::ValuesIn(ways_that([](const Way& way) {
                           return way.target != "host";
                         })),
                         name_of);
#ifdef TESSERA_HAS_CUDA
INSTANTIATE_TEST_SUITE_P(Ways,
                         StagedTargetTest,
                         testing::ValuesIn(ways_that([](const Way& way) {
                           return way.target != "host" && !way.is_direct();
                         })),
                         name_of);
#endif

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
