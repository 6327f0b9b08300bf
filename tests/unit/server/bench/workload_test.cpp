#include "server/bench/workload.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace tessera::bench {
namespace {

using test::TempFolder;

size_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<size_t>(end - a.begin());
}

class FileWorkloadTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Workload>> read(DataKind kind,
                                         const std::string& content,
                                         Api api = Api::kCompletions) {
    BenchSettings settings;
    settings.api = api;
    settings.data.kind = kind;
    settings.data.path = folder_.file("data.jsonl");
    folder_.write("data.jsonl", content);
    return make_workload(settings);
  }

  TempFolder folder_;
};

TEST(RandomWorkloadTest, PromptsDependOnSeedAndIndexOnly) {
  BenchSettings settings;
  settings.data.input_tokens = 40;
  const auto one = make_workload(settings).value();
  const auto two = make_workload(settings).value();
  EXPECT_EQ(one->prompt(3).token_ids, two->prompt(3).token_ids);
  EXPECT_NE(one->prompt(3).token_ids, one->prompt(4).token_ids);
  settings.seed = 1;
  EXPECT_NE(make_workload(settings).value()->prompt(3).token_ids, one->prompt(3).token_ids);
}

TEST(RandomWorkloadTest, LengthsAndIdsStayInTheirRanges) {
  BenchSettings settings;
  settings.data.input_tokens = 100;
  settings.data.output_tokens = 10;
  settings.data.length_range = 0.5;
  settings.data.first_token_id = 5;
  settings.data.end_token_id = 7;
  const auto workload = make_workload(settings).value();
  size_t shortest = 1000;
  size_t longest = 0;
  for (int64_t i = 0; i < 300; ++i) {
    const Prompt prompt = workload->prompt(i);
    shortest = std::min(shortest, prompt.token_ids.size());
    longest = std::max(longest, prompt.token_ids.size());
    ASSERT_GE(prompt.output_tokens, 5);
    ASSERT_LE(prompt.output_tokens, 15);
    ASSERT_TRUE(std::all_of(prompt.token_ids.begin(), prompt.token_ids.end(), [](int32_t id) {
      return id == 5 || id == 6;
    }));
  }
  EXPECT_GE(shortest, 50U);
  EXPECT_LT(shortest, 60U);
  EXPECT_GT(longest, 140U);
  EXPECT_LE(longest, 150U);
}

TEST(RandomWorkloadTest, GroupsShareTheirPrefixAndNothingElse) {
  BenchSettings settings;
  settings.data.kind = DataKind::kSharedPrefix;
  settings.data.num_prefix_groups = 2;
  settings.data.prefix_tokens = 30;
  settings.data.input_tokens = 20;
  const auto workload = make_workload(settings).value();
  const std::vector<int32_t> first = workload->prompt(0).token_ids;
  int num_shared = 0;
  for (int64_t i = 1; i < 100; ++i) {
    const std::vector<int32_t> other = workload->prompt(i).token_ids;
    ASSERT_EQ(other.size(), 50U);
    const size_t common = common_prefix(first, other);
    ASSERT_TRUE(common < 10 || (common >= 30 && common < 40)) << common;
    num_shared += common >= 30 ? 1 : 0;
  }
  EXPECT_GT(num_shared, 20);
  EXPECT_LT(num_shared, 80);
}

TEST(TextOfTest, EqualIdsAreEqualWords) {
  EXPECT_EQ(text_of({1, 2, 1}).substr(0, 3), text_of({1}));
  EXPECT_NE(text_of({1}), text_of({2}));
  EXPECT_EQ(text_of({}), "");
}

TEST_F(FileWorkloadTest, JsonlHasTextIdsAndLengths) {
  const auto workload = read(DataKind::kJsonl,
                             "{\"prompt\": \"hello\", \"output_tokens\": 3}\n\n"
                             "{\"prompt\": [4, 5]}\n")
                            .value();
  EXPECT_EQ(workload->size(), 2);
  EXPECT_EQ(workload->prompt(0).text, "hello");
  EXPECT_EQ(workload->prompt(0).output_tokens, 3);
  EXPECT_EQ(workload->prompt(1).token_ids, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(workload->prompt(1).output_tokens, DataSettings().output_tokens);
  EXPECT_EQ(workload->prompt(2).text, "hello");  // begins again
}

TEST_F(FileWorkloadTest, MessagesAreForChatOnly) {
  const std::string line = R"({"messages": [{"role": "user", "content": "hi"}]})";
  EXPECT_EQ(read(DataKind::kJsonl, line, Api::kChat).value()->prompt(0).messages_json,
            R"([{"content":"hi","role":"user"}])");
  EXPECT_FALSE(read(DataKind::kJsonl, line, Api::kCompletions).is_ok());
}

TEST_F(FileWorkloadTest, BadLinesAreNamed) {
  for (const char* line : {"{\"prompt\": 5}",
                           "{}",
                           "not json",
                           "{\"prompt\": [-1]}",
                           "{\"prompt\": \"a\", \"output_tokens\": 0}"}) {
    const Status status =
        read(DataKind::kJsonl, std::string("{\"prompt\":\"a\"}\n") + line).status();
    EXPECT_NE(status.message().find("data.jsonl:2"), std::string::npos) << status.message();
  }
  EXPECT_FALSE(read(DataKind::kJsonl, "\n").is_ok());
}

TEST_F(FileWorkloadTest, EqualHashIdsOfATraceGiveEqualPrefixes) {
  const auto workload =
      read(DataKind::kMooncake,
           R"({"timestamp": 0, "input_length": 1500, "output_length": 9, "hash_ids": [7, 8, 9]})"
           "\n"
           R"({"timestamp": 250, "input_length": 1030, "output_length": 4, "hash_ids": [7, 8, 10]})"
           "\n"
           R"({"timestamp": 250, "input_length": 600, "output_length": 4, "hash_ids": [8]})")
          .value();
  const Prompt first = workload->prompt(0);
  const Prompt second = workload->prompt(1);
  EXPECT_EQ(first.token_ids.size(), 1500U);
  EXPECT_EQ(first.output_tokens, 9);
  EXPECT_EQ(second.token_ids.size(), 1030U);
  const size_t common = common_prefix(first.token_ids, second.token_ids);
  EXPECT_GE(common, 1024U);
  EXPECT_LT(common, 1030U);
  EXPECT_LT(common_prefix(first.token_ids, workload->prompt(2).token_ids), 10U);
  EXPECT_EQ(workload->prompt(2).token_ids.size(), 600U);
  EXPECT_EQ(workload->trace_ms(), (std::vector<double>{0.0, 250.0, 250.0}));
}

TEST_F(FileWorkloadTest, TraceThatGoesBackInTimeIsRefused) {
  const Status status = read(DataKind::kMooncake,
                             R"({"timestamp": 5, "input_length": 1, "output_length": 1})"
                             "\n"
                             R"({"timestamp": 4, "input_length": 1, "output_length": 1})")
                            .status();
  EXPECT_NE(status.message().find(":2"), std::string::npos) << status.message();
}

TEST(FileWorkloadErrorTest, MissingFileIsNotFound) {
  BenchSettings settings;
  settings.data.kind = DataKind::kMooncake;
  settings.data.path = "/nonexistent/trace.jsonl";
  EXPECT_EQ(make_workload(settings).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace tessera::bench
