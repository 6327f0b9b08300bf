#include "engine/transport/ucx_lane.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(UcxLaneTest, NamesTheTransportAndDeviceOfEachLane) {
  constexpr const char* kPrinted =
      "#\n# UCP endpoint \n#\n"
      "#               peer: <no debug data>\n"
      "#                 lane[0]:  2:sysv/memory.0 md[2]           -> md[2]/sysv/sysdev[255] am\n"
      "#                 lane[1]:  5:rc_mlx5/mlx5_0:1.0 md[4]      -> md[4]/ib/sysdev[0] rma#0\n"
      "#\n#                am_send: 0..<egr/short>..93..<egr/bcopy>..8256..<rndv>..(inf)\n";
  EXPECT_EQ(parse_lanes(kPrinted), "sysv/memory,rc_mlx5/mlx5_0:1");
}

TEST(UcxLaneTest, AnotherTextHasNoLane) {
  EXPECT_EQ(parse_lanes(""), "");
  EXPECT_EQ(parse_lanes("# UCP endpoint\n# lane[\n# lane[0]: x\n"), "");
}

TEST(UcxLaneTest, KnowsWhichLanesReadDeviceMemory) {
  EXPECT_TRUE(has_device_lane("sysv/memory,cuda_ipc/cuda"));
  EXPECT_TRUE(has_device_lane("cuda_ipc/cuda,tcp/eth0"));
  EXPECT_TRUE(has_device_lane("rc_mlx5/mlx5_0:1,tcp/eth0"));
  EXPECT_FALSE(has_device_lane("tcp/eth0,sysv/memory,cuda_copy/cuda"));
  EXPECT_FALSE(has_device_lane("tcp/src_dc_0"));
  EXPECT_FALSE(has_device_lane(""));
}

}  // namespace
}  // namespace tessera
