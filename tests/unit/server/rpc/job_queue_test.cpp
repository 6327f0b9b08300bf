#include "server/rpc/job_queue.h"

#include <future>
#include <vector>

#include <gtest/gtest.h>

namespace tessera::rpc {
namespace {

/// A queue whose one thread is busy until release().
class JobQueueTest : public ::testing::Test {
 protected:
  void occupy() {
    std::promise<void> begun;
    ASSERT_TRUE(queue_.try_post(0, [&begun, released = released_.get_future().share()] {
      begun.set_value();
      released.wait();
    }));
    begun.get_future().wait();
  }
  void release() { released_.set_value(); }

  std::promise<void> released_;
  JobQueue queue_{{.num_threads = 1, .max_jobs = 2, .max_bytes = 100}};
};

TEST_F(JobQueueTest, RunsJobsInTurn) {
  std::vector<int> order;
  occupy();
  std::promise<void> done;
  ASSERT_TRUE(queue_.try_post(1, [&] { order.push_back(1); }));
  ASSERT_TRUE(queue_.try_post(1, [&] {
    order.push_back(2);
    done.set_value();
  }));
  release();
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST_F(JobQueueTest, RefusesMoreJobsOrBytesThanItsBounds) {
  occupy();
  EXPECT_FALSE(queue_.try_post(101, [] {}));
  EXPECT_TRUE(queue_.try_post(60, [] {}));
  EXPECT_FALSE(queue_.try_post(41, [] {}));
  EXPECT_TRUE(queue_.try_post(40, [] {}));
  EXPECT_FALSE(queue_.try_post(0, [] {}));
  release();
}

TEST_F(JobQueueTest, RefusesJobsOnceStopped) {
  queue_.stop_blocking();
  EXPECT_FALSE(queue_.try_post(1, [] {}));
}

}  // namespace
}  // namespace tessera::rpc
