#include <gtest/gtest.h>

#include "engine/transport/transport_options.h"

namespace tessera {
namespace {

TEST(TransportFaultsTest, NamesAreReadInAnyOrder) {
  const TransportFaults faults = parse_transport_faults("flip=5,drop_ready=3,drop_ack=12").value();
  EXPECT_EQ(faults, (TransportFaults{3, 12, 5}));
  EXPECT_EQ(parse_transport_faults("").value(), TransportFaults());
}

TEST(TransportFaultsTest, AnythingElseIsRefused) {
  for (const char* text : {"drop",
                           "drop_ready",
                           "drop_ready=",
                           "drop_ready=0",
                           "drop_ready=-1",
                           "flip=1x",
                           "flip=1,",
                           ",flip=1",
                           "flip=99999999999999999999",
                           "lose=1",
                           "flip = 1"}) {
    EXPECT_EQ(parse_transport_faults(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace tessera
