#include "server/router/router_inbox.h"

#include <gtest/gtest.h>

#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

class RouterInboxTest : public ::testing::Test {
 protected:
  Status submit(int32_t num_tokens) {
    Submission submission;
    submission.request = make_request(std::vector<int32_t>(static_cast<size_t>(num_tokens), 1));
    last = submission.request.id;
    return inbox().submit(std::move(submission));
  }
  RouterInbox& inbox() {
    if (inbox_ == nullptr) {
      inbox_ = std::make_unique<RouterInbox>(options);
    }
    return *inbox_;
  }

  RouterOptions options = fake_options();
  RequestId last;

 private:
  std::unique_ptr<RouterInbox> inbox_;
};

TEST_F(RouterInboxTest, BoundsTheRequestsInFlight) {
  options.max_in_flight_requests = 2;
  EXPECT_TRUE(submit(1).is_ok());
  const RequestId first = last;
  EXPECT_TRUE(submit(1).is_ok());
  EXPECT_EQ(submit(1).code(), StatusCode::kResourceExhausted);
  inbox().note_ended(first);
  EXPECT_TRUE(submit(1).is_ok());
}

TEST_F(RouterInboxTest, BoundsTheQueuedPromptTokens) {
  options.max_queued_prompt_tokens = 100;
  EXPECT_TRUE(submit(100).is_ok());
  const RequestId first = last;
  EXPECT_EQ(submit(1).code(), StatusCode::kResourceExhausted);
  inbox().note_prefilled(first);
  EXPECT_TRUE(submit(60).is_ok());
  EXPECT_EQ(submit(41).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(submit(40).is_ok());
  inbox().note_ended(first);  // its tokens were given back before
  EXPECT_EQ(submit(1).code(), StatusCode::kResourceExhausted);
}

TEST_F(RouterInboxTest, TakesAPromptAboveTheBoundWhenItIsAlone) {
  options.max_queued_prompt_tokens = 100;
  EXPECT_TRUE(submit(500).is_ok());
  EXPECT_FALSE(submit(1).is_ok());
}

TEST_F(RouterInboxTest, BoundsTheRequestsThatWaitForAWorker) {
  options.max_waiting_requests = 3;
  inbox().note_waiting(3);
  EXPECT_EQ(submit(1).code(), StatusCode::kResourceExhausted);
  inbox().note_waiting(2);
  EXPECT_TRUE(submit(1).is_ok());
}

TEST_F(RouterInboxTest, RefusesALiveId) {
  Submission first;
  first.request = make_request();
  Submission second;
  second.request = first.request;
  EXPECT_TRUE(inbox().submit(std::move(first)).is_ok());
  EXPECT_EQ(inbox().submit(std::move(second)).code(), StatusCode::kInvalidArgument);
}

TEST_F(RouterInboxTest, RefusesWithTheFirstReasonAfterClose) {
  inbox().close(unavailable("draining"));
  inbox().close(unavailable("stopped"));
  EXPECT_EQ(submit(1).message(), "draining");
  EXPECT_EQ(inbox().readiness().message(), "draining");
}

TEST_F(RouterInboxTest, IsReadyWithAPair) {
  EXPECT_EQ(inbox().readiness().code(), StatusCode::kUnavailable);
  inbox().note_pair(true);
  EXPECT_TRUE(inbox().readiness().is_ok());
  inbox().note_pair(false);
  EXPECT_FALSE(inbox().readiness().is_ok());
}

TEST_F(RouterInboxTest, KeepsOneCancelOfALiveRequest) {
  EXPECT_TRUE(submit(1).is_ok());
  inbox().cancel(last);
  inbox().cancel(last);
  inbox().cancel(RequestId::random());
  RouterInbox::Work work;
  inbox().collect(work);
  EXPECT_EQ(work.cancels, std::vector<RequestId>{last});
}

TEST_F(RouterInboxTest, DropsEventsOnceItIsShut) {
  inbox().shut();
  inbox().post(LegEvent{1, HandedOver{}});
  EXPECT_TRUE(inbox().try_post_token(1, {}));
  RouterInbox::Work work;
  inbox().collect(work);
  EXPECT_TRUE(work.leg_events.empty());
}

TEST_F(RouterInboxTest, RefusesTokensAboveItsBound) {
  int64_t num_taken = 0;
  while (num_taken < 1'000'000 && inbox().try_post_token(1, {})) {
    ++num_taken;
  }
  EXPECT_EQ(num_taken, 262'144);
  RouterInbox::Work work;
  inbox().collect(work);
  EXPECT_TRUE(inbox().try_post_token(1, {}));
}

TEST_F(RouterInboxTest, WaitsUntilNothingIsLiveOrTheDeadline) {
  EXPECT_TRUE(inbox().wait_until_empty_blocking(Deadline()));
  EXPECT_TRUE(submit(1).is_ok());
  EXPECT_FALSE(inbox().wait_until_empty_blocking(Deadline(Deadline::Clock::now())));
}

}  // namespace
}  // namespace tessera::router
