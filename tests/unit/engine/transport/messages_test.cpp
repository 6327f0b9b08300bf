#include "engine/transport/messages.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(TransportMessagesTest, BatchesComeBackAsTheyWere) {
  const std::vector<Ready> ready = {{{{1, 2}, 3}, 4, 5, 6, 7, 8},
                                    {{{~0ULL, 9}, 1}, 0, 31, 2, 1, ~0ULL}};
  EXPECT_EQ(decode_ready(encode(ready)), ready);
  const std::vector<Ack> acks = {{{{1, 2}, 3}, 4, 5, 6, AckCode::kDropped},
                                 {{{7, 8}, 9}, 10, 11, 12, AckCode::kDamaged}};
  EXPECT_EQ(decode_ack(encode(acks)), acks);
  const LinkHello hello = decode_hello(encode(LinkHello{42, "address"})).value();
  EXPECT_EQ(hello.connection, 42U);
  EXPECT_EQ(hello.worker_address, "address");
}

TEST(TransportMessagesTest, WhatHasAnotherSizeOrCodeIsNoMessage) {
  const std::string ready = encode(std::vector<Ready>(2));
  EXPECT_TRUE(decode_ready(ready.substr(1)).empty());
  EXPECT_TRUE(decode_ready(ready + "x").empty());
  EXPECT_TRUE(decode_ready(encode(std::vector<Ready>(kMaxBatch + 1))).empty());
  std::string ack = encode(std::vector<Ack>(1));
  EXPECT_EQ(decode_ack(ack).size(), 1U);
  ack.back() = 1;
  EXPECT_TRUE(decode_ack(ack).empty());
  EXPECT_FALSE(decode_hello("12345678").has_value());
}

}  // namespace
}  // namespace tessera
