#include "server/rpc/convert.h"

#include <cmath>
#include <limits>
#include <string>
#include <variant>

#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include "engine/base/text.h"
#include "proto/tessera/common.pb.h"
#include "proto/tessera/decode.pb.h"
#include "proto/tessera/prefill.pb.h"
#include "proto/tessera/worker.pb.h"

namespace tessera::rpc {
namespace {

const HandoffKey kKey{{0x0123456789abcdefU, 0xfedcba9876543210U}, 3};

template <typename Proto, typename Message>
Result<Message> round_trip(const Message& message) {
  Proto proto;
  to_proto(message, proto);
  Proto parsed;
  EXPECT_TRUE(parsed.ParseFromString(proto.SerializeAsString()));
  return from_proto(parsed);
}

/// The alternative `T` of a link message after a round trip.
template <typename T, typename Variant, typename Proto>
T carry(const T& value) {
  const auto result = round_trip<Proto, Variant>(Variant(value));
  EXPECT_TRUE(result.is_ok()) << result.status().to_string();
  return result.is_ok() ? std::get<T>(result.value()) : T();
}
template <typename T>
T to_decode(const T& value) {
  return carry<T, PrefillMessage, v1::PrefillMessage>(value);
}
template <typename T>
T to_prefill(const T& value) {
  return carry<T, DecodeMessage, v1::DecodeMessage>(value);
}

TEST(ConvertTest, SamplingParamsKeepEveryField) {
  SamplingParams params;
  params.temperature = 0.5F;
  params.top_k = 7;
  params.top_p = 0.25F;
  params.min_p = 0.125F;
  params.repetition_penalty = 1.5F;
  params.presence_penalty = -0.5F;
  params.frequency_penalty = 0.75F;
  params.logit_bias = {{3, -2.0F}, {4, 5.0F}};
  params.seed = std::numeric_limits<uint64_t>::max();
  params.num_top_logprobs = 0;
  params.max_tokens = 9;
  params.min_tokens = 2;
  params.ignore_eos = true;
  params.stop_token_ids = {11, 12};
  const auto result = round_trip<v1::SamplingParams>(params);
  ASSERT_TRUE(result.is_ok()) << result.status().to_string();
  const SamplingParams& out = result.value();
  EXPECT_EQ(out.temperature, 0.5F);
  EXPECT_EQ(out.top_k, 7);
  EXPECT_EQ(out.top_p, 0.25F);
  EXPECT_EQ(out.min_p, 0.125F);
  EXPECT_EQ(out.repetition_penalty, 1.5F);
  EXPECT_EQ(out.presence_penalty, -0.5F);
  EXPECT_EQ(out.frequency_penalty, 0.75F);
  EXPECT_EQ(out.logit_bias, params.logit_bias);
  EXPECT_EQ(out.seed, params.seed);
  EXPECT_EQ(out.num_top_logprobs, 0);
  EXPECT_EQ(out.max_tokens, 9);
  EXPECT_EQ(out.min_tokens, 2);
  EXPECT_TRUE(out.ignore_eos);
  EXPECT_EQ(out.stop_token_ids, params.stop_token_ids);
}

TEST(ConvertTest, AbsentSamplingFieldsTakeTheEnginesDefaults) {
  const auto result = from_proto(v1::SamplingParams());
  ASSERT_TRUE(result.is_ok());
  const SamplingParams defaults;
  EXPECT_EQ(result.value().temperature, defaults.temperature);
  EXPECT_EQ(result.value().top_p, defaults.top_p);
  EXPECT_EQ(result.value().repetition_penalty, defaults.repetition_penalty);
  EXPECT_EQ(result.value().num_top_logprobs, -1);
  EXPECT_FALSE(result.value().seed.has_value());
}

TEST(ConvertTest, TokenEventKeepsEveryField) {
  TokenEvent event;
  event.choice = 2;
  event.index = 17;
  event.token_id = 99;
  event.logprob = -1.25F;
  event.top_logprobs = {{99, -1.25F}, {5, -2.0F}};
  event.finish_reason = FinishReason::kStop;
  event.stop_token_id = 99;
  event.num_cached_tokens = 64;
  const auto result = round_trip<v1::TokenEvent>(event);
  ASSERT_TRUE(result.is_ok());
  EXPECT_EQ(result.value().choice, 2);
  EXPECT_EQ(result.value().index, 17);
  EXPECT_EQ(result.value().token_id, 99);
  EXPECT_EQ(result.value().logprob, -1.25F);
  EXPECT_EQ(result.value().top_logprobs, event.top_logprobs);
  EXPECT_EQ(result.value().finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.value().stop_token_id, 99);
  EXPECT_EQ(result.value().num_cached_tokens, 64);
}

TEST(ConvertTest, DeadlinesTravelAsTimeLeft) {
  AttachRequest request;
  request.key = kKey;
  v1::AttachRequest proto;
  to_proto(request, proto);
  EXPECT_EQ(proto.timeout_ms(), 0);
  ASSERT_TRUE(from_proto(proto).is_ok());
  EXPECT_TRUE(from_proto(proto).value().deadline.is_infinite());

  request.deadline = Deadline::after(std::chrono::milliseconds(-5));
  to_proto(request, proto);
  EXPECT_EQ(proto.timeout_ms(), 1);  // expired is not "none"

  request.deadline = Deadline::after(std::chrono::minutes(2));
  to_proto(request, proto);
  EXPECT_GT(proto.timeout_ms(), 60'000);
  EXPECT_LE(proto.timeout_ms(), 120'000);
  const Deadline deadline = from_proto(proto).value().deadline;
  EXPECT_LE(deadline.at(), request.deadline.at() + std::chrono::seconds(60));
  EXPECT_FALSE(deadline.is_expired());
}

TEST(ConvertTest, LinkMessagesOfPrefillKeepEveryField) {
  const auto hello = to_decode(Hello{1, 5, "prefill-0", "abc"});
  EXPECT_EQ(hello.protocol, 1U);
  EXPECT_EQ(hello.epoch, 5U);
  EXPECT_EQ(hello.worker_name, "prefill-0");
  EXPECT_EQ(hello.fingerprint, "abc");
  const auto reserve = to_decode(Reserve{kKey, {1, 2, 3}, 4, 100});
  EXPECT_EQ(reserve.key, kKey);
  EXPECT_EQ(reserve.prompt_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(reserve.num_choices, 4);
  EXPECT_EQ(reserve.max_total_tokens, 100);
  TokenEvent token;
  token.token_id = 8;
  const auto seal = to_decode(Seal{kKey, {token, token}, {1.5, -2.25}});
  EXPECT_EQ(seal.key, kKey);
  EXPECT_EQ(seal.first_tokens.size(), 2U);
  EXPECT_EQ(seal.probes, (std::vector<double>{1.5, -2.25}));
  const auto abort = to_decode(Abort{kKey, "client gone"});
  EXPECT_EQ(abort.key, kKey);
  EXPECT_EQ(abort.reason, "client gone");
  EXPECT_EQ(to_decode(KeepAlive{{kKey}}).live, std::vector<HandoffKey>{kKey});
}

TEST(ConvertTest, LinkMessagesOfDecodeKeepEveryField) {
  Welcome welcome;
  welcome.epoch = 9;
  welcome.layout = {DecodeLayout::Dealing::kBlocks, 4, 1, {5, 6}};
  welcome.regions = {{2, std::string("a\0\xff", 3), 11, 12, "\xfe", 13, 14}};
  const auto out = to_prefill(welcome);
  EXPECT_EQ(out.epoch, 9U);
  EXPECT_EQ(out.layout.dealing, DecodeLayout::Dealing::kBlocks);
  EXPECT_EQ(out.layout.num_ranks, 4);
  EXPECT_EQ(out.layout.num_images, 1);
  EXPECT_EQ(out.layout.window, (kernels::LatentWindow{.num_first = 5, .num_last = 6}));
  ASSERT_EQ(out.regions.size(), 1U);
  EXPECT_EQ(out.regions[0].rank, 2);
  EXPECT_EQ(out.regions[0].worker_address, welcome.regions[0].worker_address);
  EXPECT_EQ(out.regions[0].connection, 11U);
  EXPECT_EQ(out.regions[0].base_address, 12U);
  EXPECT_EQ(out.regions[0].remote_key, "\xfe");
  EXPECT_EQ(out.regions[0].num_slots, 13);
  EXPECT_EQ(out.regions[0].slot_bytes, 14);
  EXPECT_EQ(to_prefill(Grant{kKey, 64}).num_held_tokens, 64);
  EXPECT_EQ(to_prefill(Busy{kKey, 50}).retry_after_ms, 50);
  EXPECT_EQ(to_prefill(Reject{kKey, not_found("x")}).status, not_found("x"));
  EXPECT_EQ(to_prefill(Committed{kKey}).key, kKey);
  EXPECT_EQ(to_prefill(Aborted{kKey, data_loss("y")}).status, data_loss("y"));
  EXPECT_EQ(to_prefill(KeepAlive{{kKey, kKey}}).live.size(), 2U);
}

TEST(ConvertTest, WorkerIdentityAndLoadKeepEveryField) {
  WorkerIdentity identity;
  identity.role = WorkerRole::kDecode;
  identity.info = {"m", "f", "l", 3, 4096, 1000, 128, "dcp on 2 ranks", 2, 640, 1152};
  identity.version = "1.2.3";
  const auto out = round_trip<v1::WorkerInfo>(identity);
  ASSERT_TRUE(out.is_ok()) << out.status().to_string();
  EXPECT_EQ(out.value().role, WorkerRole::kDecode);
  EXPECT_EQ(out.value().info.model_name, "m");
  EXPECT_EQ(out.value().info.model_fingerprint, "f");
  EXPECT_EQ(out.value().info.layout_fingerprint, "l");
  EXPECT_EQ(out.value().info.epoch, 3U);
  EXPECT_EQ(out.value().info.max_model_len, 4096);
  EXPECT_EQ(out.value().info.vocab_size, 1000);
  EXPECT_EQ(out.value().info.max_local_prefill_tokens, 128);
  EXPECT_EQ(out.value().info.attention, "dcp on 2 ranks");
  EXPECT_EQ(out.value().info.num_ranks, 2);
  EXPECT_EQ(out.value().info.cache_bytes_per_token, 640);
  EXPECT_EQ(out.value().info.cache_bytes_per_token_replicated, 1152);
  EXPECT_EQ(out.value().version, "1.2.3");
  const auto load = round_trip<v1::WorkerLoad>(WorkerLoad{1, 2, 3, 4, 5, 6, true, 7, 8, 9, 10, 11});
  ASSERT_TRUE(load.is_ok());
  EXPECT_EQ(load.value().num_requests_running, 1);
  EXPECT_EQ(load.value().num_requests_waiting, 2);
  EXPECT_EQ(load.value().num_queued_prompt_tokens, 3);
  EXPECT_EQ(load.value().num_blocks_total, 4);
  EXPECT_EQ(load.value().num_blocks_free, 5);
  EXPECT_EQ(load.value().num_sequences_limit, 6);
  EXPECT_TRUE(load.value().is_draining);
  EXPECT_EQ(load.value().num_prompt_tokens, 7);
  EXPECT_EQ(load.value().num_generated_tokens, 8);
  EXPECT_EQ(load.value().num_handoffs, 9);
  EXPECT_EQ(load.value().handoff_us, 10);
  EXPECT_EQ(load.value().handoff_bytes, 11);
}

TEST(ConvertTest, RequestsKeepTheirTraceWithASpanOfTheSender) {
  const TraceContext trace{1, 2, 3, 1};
  PrefillRequest prefill;
  prefill.key = kKey;
  prefill.generation.id = kKey.request;
  prefill.generation.prompt_ids = {1};
  prefill.generation.sampling.max_tokens = 1;
  prefill.generation.trace = trace;
  prefill.decode_candidates = {"h:1"};
  v1::PrefillRequest prefill_message;
  to_proto(prefill, prefill_message);
  const auto prefill_out = from_proto(prefill_message, 10);
  ASSERT_TRUE(prefill_out.is_ok()) << prefill_out.status().to_string();
  AttachRequest attach;
  attach.key = kKey;
  attach.sampling.max_tokens = 1;
  attach.trace = trace;
  v1::AttachRequest attach_message;
  to_proto(attach, attach_message);
  const auto attach_out = from_proto(attach_message);
  ASSERT_TRUE(attach_out.is_ok()) << attach_out.status().to_string();
  for (const TraceContext& out : {prefill_out.value().generation.trace, attach_out.value().trace}) {
    EXPECT_EQ(out.trace_id(), trace.trace_id());
    EXPECT_EQ(out.flags, trace.flags);
    EXPECT_NE(out.span, trace.span);
  }
  attach_message.set_traceparent("nonsense");
  EXPECT_FALSE(from_proto(attach_message).value().trace.is_valid());
}

TEST(ConvertTest, ViolatedBoundsNameTheFieldAndBothValues) {
  v1::GenerateRequest request;
  v1::GenerationRequest& generation = *request.mutable_generation();
  generation.set_num_choices(1);
  const auto message = [&] { return from_proto(request, 4).status().message(); };
  EXPECT_EQ(message(), "key is all zeros");
  request.mutable_key()->set_request_low(1);
  EXPECT_EQ(message(), "prompt_ids has 0 tokens, expected 1 to 4");
  generation.add_prompt_ids(-7);
  EXPECT_EQ(message(), "prompt_ids names token -7, expected at least 0");
  generation.set_prompt_ids(0, 7);
  EXPECT_EQ(message(), "");
  generation.set_num_choices(129);
  EXPECT_EQ(message(), "num_choices is 129, expected 1 to 128");
  generation.set_num_choices(1);
  generation.set_num_replayed_tokens(2);
  EXPECT_EQ(message(), "num_replayed_tokens is 2, expected 0 to 1");
  generation.set_num_replayed_tokens(0);
  generation.set_timeout_ms(-1);
  EXPECT_EQ(message(), "timeout_ms is -1, expected 0 to 604800000");
  generation.set_timeout_ms(0);
  for (int i = 0; i < 1025; ++i) {
    generation.mutable_sampling()->add_stop_token_ids(i);
  }
  EXPECT_EQ(message(), "stop_token_ids has 1025 entries, at most 1024");
}

TEST(ConvertTest, LinkMessagesBeyondTheirBoundsAreRefused) {
  v1::PrefillMessage prefill;
  EXPECT_EQ(from_proto(prefill).status().code(), StatusCode::kInvalidArgument);
  prefill.mutable_hello()->set_worker_name(std::string(257, 'x'));
  EXPECT_EQ(from_proto(prefill).status(),
            invalid_argument("hello.worker_name has 257 bytes, at most 256"));
  prefill.mutable_seal()->add_first_tokens();
  prefill.mutable_seal()->add_probes(std::nan(""));
  EXPECT_EQ(from_proto(prefill).status(),
            invalid_argument("seal.probes holds nan, expected a finite number"));
  v1::DecodeMessage decode;
  decode.mutable_welcome();
  EXPECT_EQ(from_proto(decode).status(), invalid_argument("layout.dealing is 0, expected 1 to 2"));
  decode.mutable_reject()->mutable_status()->set_code(0);
  EXPECT_EQ(from_proto(decode).status(), invalid_argument("status.code is 0, expected 1 to 16"));
}

TEST(ConvertTest, LongOrBrokenTextsAreCutAndCleaned) {
  const std::string euro = "\xe2\x82\xac";
  std::string text(4095, 'a');
  text += euro;
  const Aborted cut = to_prefill(Aborted{kKey, internal_error(text)});
  EXPECT_EQ(cut.status.message(), std::string(4095, 'a'));
  const Aborted cleaned = to_prefill(Aborted{kKey, internal_error("a\xff")});
  EXPECT_EQ(cleaned.status.message(), "a?");
  const grpc::Status trailer = to_grpc(internal_error(text));
  EXPECT_LE(trailer.error_message().size(), 2048U);
}

TEST(ConvertTest, StatusCodesEqualThoseOfGrpc) {
  for (int code = 1; code <= 16; ++code) {
    const Status status(static_cast<StatusCode>(code), "m");
    EXPECT_EQ(static_cast<int>(to_grpc(status).error_code()), code);
    EXPECT_EQ(from_grpc(to_grpc(status)), status);
  }
  EXPECT_TRUE(from_grpc(grpc::Status::OK).is_ok());
}

}  // namespace
}  // namespace tessera::rpc
