#include "engine/handoff/answer_memory.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/handoff/fake_engine_host.h"

namespace tessera::testing {
namespace {

using std::chrono::seconds;

TEST(AnswerMemoryTest, KeepsTheHighestAttempt) {
  AnswerMemory memory(seconds(60), 10);
  const AnswerMemory::TimePoint now{};
  memory.remember(make_key(1, 2), Status::ok(), now);
  memory.remember(make_key(1, 1), unavailable("late"), now);
  ASSERT_NE(memory.find(make_key(1).request), nullptr);
  EXPECT_EQ(memory.find(make_key(1).request)->attempt, 2U);
  EXPECT_TRUE(memory.find(make_key(1).request)->status.is_ok());
  EXPECT_EQ(memory.find(make_key(2).request), nullptr);
}

TEST(AnswerMemoryTest, ForgetsByTime) {
  AnswerMemory memory(seconds(60), 10);
  const AnswerMemory::TimePoint now{};
  memory.remember(make_key(1, 1), Status::ok(), now);
  memory.remember(make_key(1, 2), Status::ok(), now + seconds(30));
  memory.forget_old(now + seconds(60));
  ASSERT_NE(memory.find(make_key(1).request), nullptr) << "the second one replaced the first";
  memory.forget_old(now + seconds(90));
  EXPECT_EQ(memory.size(), 0U);
}

TEST(AnswerMemoryTest, ForgetsTheOldestWhenThereAreTooMany) {
  AnswerMemory memory(seconds(60), 3);
  for (uint64_t i = 0; i < 10; ++i) {
    memory.remember(make_key(i), Status::ok(), {});
  }
  EXPECT_EQ(memory.size(), 3U);
  EXPECT_EQ(memory.find(make_key(6).request), nullptr);
  EXPECT_NE(memory.find(make_key(7).request), nullptr);
}

}  // namespace
}  // namespace tessera::testing
