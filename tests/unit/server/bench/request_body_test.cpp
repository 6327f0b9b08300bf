#include "server/bench/request_body.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace tessera::bench {
namespace {

using nlohmann::json;

json body_of(Api api, const Prompt& prompt, bool ignore_eos = true) {
  BenchSettings settings;
  settings.api = api;
  settings.model = "m\"1";
  settings.ignore_eos = ignore_eos;
  return json::parse(request_body(settings, prompt));
}

TEST(RequestBodyTest, CompletionsSendTokenIds) {
  const json body = body_of(Api::kCompletions, {.token_ids = {3, 40}, .output_tokens = 6});
  EXPECT_EQ(body["model"], "m\"1");
  EXPECT_EQ(body["prompt"], json({3, 40}));
  EXPECT_EQ(body["max_tokens"], 6);
  EXPECT_EQ(body["stream"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["temperature"], 0.0);
}

TEST(RequestBodyTest, ChatSendsWordsForIds) {
  const json body = body_of(Api::kChat, {.token_ids = {3, 40}, .output_tokens = 6}, false);
  EXPECT_EQ(body["messages"][0]["role"], "user");
  EXPECT_EQ(body["messages"][0]["content"], text_of({3, 40}));
  EXPECT_EQ(body["max_completion_tokens"], 6);
  EXPECT_FALSE(body.contains("ignore_eos"));
  EXPECT_FALSE(body.contains("prompt"));
}

TEST(RequestBodyTest, TextAndMessagesGoAsTheyAre) {
  EXPECT_EQ(body_of(Api::kCompletions, {.text = "a \"b\"\n\xFF"})["prompt"],
            "a \"b\"\n\xEF\xBF\xBD");
  const json body = body_of(Api::kChat, {.messages_json = R"([{"role":"system","content":"s"}])"});
  EXPECT_EQ(body["messages"], json::parse(R"([{"role":"system","content":"s"}])"));
}

}  // namespace
}  // namespace tessera::bench
