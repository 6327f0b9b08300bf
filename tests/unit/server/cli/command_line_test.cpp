#include "server/cli/command_line.h"

#include <cstdio>
#include <fstream>

#include <gtest/gtest.h>

namespace tessera::cli {
namespace {

Environment no_environment() {
  return [](const std::string&) { return std::nullopt; };
}

Result<CommandLine> parse(const std::vector<std::string>& arguments) {
  return parse_command_line(arguments, no_environment());
}

Options parse_options(const std::vector<std::string>& arguments) {
  const auto line = parse(arguments);
  EXPECT_TRUE(line.is_ok()) << line.status().message();
  return line.is_ok() ? line.value().resolved.options : Options{};
}

TEST(CommandLineTest, ServeTakesTheModelAsPositionalOrFlag) {
  EXPECT_EQ(parse_options({"serve", "folder"}).model, "folder");
  EXPECT_EQ(parse_options({"serve", "--model", "folder"}).model, "folder");
  EXPECT_EQ(parse_options({"serve", "--port", "1", "folder"}).model, "folder");
  EXPECT_EQ(parse({"serve", "folder"}).value().command, Command::kServe);
}

TEST(CommandLineTest, FlagsSetEachKindOfOption) {
  const Options options = parse_options({"serve",
                                         "folder",
                                         "--api-key",
                                         "one",
                                         "--api-key=two",
                                         "--kv-cache-memory",
                                         "512MiB",
                                         "--no-enable-prefix-caching",
                                         "--dtype",
                                         "float32"});
  EXPECT_EQ(options.api_keys, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(options.kv_cache_memory_bytes, 536870912);
  EXPECT_FALSE(options.enable_prefix_caching);
  EXPECT_EQ(options.dtype, "float32");
}

TEST(CommandLineTest, LastOfARepeatedFlagCounts) {
  EXPECT_EQ(parse_options({"serve", "m", "--port", "1", "--port", "2"}).port, 2);
  EXPECT_TRUE(parse_options({"serve", "m", "--no-enable-prefix-caching", "--enable-prefix-caching"})
                  .enable_prefix_caching);
}

TEST(CommandLineTest, FlagsWinOverEnvironmentWinsOverFile) {
  const std::string path = testing::TempDir() + "tessera_precedence.json";
  std::ofstream(path) << R"({"model": "file", "port": 1, "max-n": 1, "max-logprobs": 1})";
  const Environment environment = [](const std::string& name) {
    return name == "TESSERA_PORT" || name == "TESSERA_MAX_N" ? std::optional<std::string>("2")
                                                             : std::nullopt;
  };
  const auto line = parse_command_line({"serve", "--config", path, "--port", "3"}, environment);
  std::remove(path.c_str());
  ASSERT_TRUE(line.is_ok()) << line.status().message();
  const Options& options = line.value().resolved.options;
  EXPECT_EQ(options.model, "file");
  EXPECT_EQ(options.port, 3);
  EXPECT_EQ(options.max_n, 2);
  EXPECT_EQ(options.max_logprobs, 1);
  EXPECT_EQ(line.value().resolved.sources.at("port"), "flag");
}

TEST(CommandLineTest, AddressOfNoMetricsPortIsAnErrorWhereverItIsSaid) {
  const std::string fault =
      "--metrics-host 0.0.0.0 without --metrics-port: /metrics is at --host 127.0.0.1, --port 8000";
  EXPECT_EQ(parse({"serve", "m", "--metrics-host", "0.0.0.0"}).status(), invalid_argument(fault));
  const Environment environment = [](const std::string& name) {
    return name == "TESSERA_METRICS_HOST" ? std::optional<std::string>("0.0.0.0") : std::nullopt;
  };
  EXPECT_EQ(parse_command_line({"serve", "m"}, environment).status(), invalid_argument(fault));
  const std::string path = testing::TempDir() + "tessera_metrics_host.json";
  std::ofstream(path) << R"({"metrics-host": "0.0.0.0"})";
  EXPECT_EQ(parse({"serve", "m", "--config", path}).status(), invalid_argument(fault));
  EXPECT_TRUE(parse({"serve", "m", "--config", path, "--metrics-port", "9100"}).is_ok());
  // As in a printed configuration.
  std::ofstream(path) << R"({"metrics-host": "127.0.0.1", "metrics-port": 0})";
  EXPECT_TRUE(parse({"serve", "m", "--config", path}).is_ok());
  std::remove(path.c_str());
}

TEST(CommandLineTest, MisspeltFlagNamesTheNearest) {
  EXPECT_EQ(parse({"serve", "m", "--max-modle-len", "5"}).status().message(),
            "unknown argument \"--max-modle-len\", did you mean --max-model-len?");
  EXPECT_EQ(parse({"serve", "m", "--prot=5"}).status().message(),
            "unknown argument \"--prot=5\", did you mean --port?");
}

TEST(CommandLineTest, MisspeltCommandNamesTheNearest) {
  EXPECT_EQ(parse({"serv", "m"}).status().message(),
            "unknown argument \"serv\", did you mean serve?");
}

TEST(CommandLineTest, BadValueNamesTheFlag) {
  EXPECT_EQ(parse({"serve", "m", "--port", "x"}).status().message(),
            "--port: \"x\" is not a whole number");
}

TEST(CommandLineTest, MissingModelIsAnError) {
  EXPECT_EQ(parse({"serve"}).status().code(), StatusCode::kInvalidArgument);
}

TEST(CommandLineTest, MissingConfigFileIsAnError) {
  EXPECT_EQ(parse({"serve", "m", "--config", "/nonexistent.json"}).status().code(),
            StatusCode::kNotFound);
}

TEST(CommandLineTest, HelpListsEveryOptionWithItsDefault) {
  const auto line = parse({"serve", "--help"});
  ASSERT_TRUE(line.is_ok());
  EXPECT_EQ(line.value().command, Command::kHelp);
  for (const char* text : {"--max-model-len", "--no-enable-prefix-caching", "8000", "TESSERA_"}) {
    EXPECT_NE(line.value().help.find(text), std::string::npos) << text;
  }
}

TEST(CommandLineTest, NothingAtAllAsksForHelp) {
  const auto line = parse({});
  ASSERT_TRUE(line.is_ok());
  EXPECT_EQ(line.value().command, Command::kHelp);
  EXPECT_NE(line.value().help.find("check-config"), std::string::npos);
}

TEST(CommandLineTest, VersionAndCheckConfigAreCommands) {
  EXPECT_EQ(parse({"version"}).value().command, Command::kVersion);
  EXPECT_EQ(parse({"check-config", "m"}).value().command, Command::kCheckConfig);
}

TEST(CommandLineTest, RolesKnowTheirOptionsAndPorts) {
  const auto router = parse({"router", "m", "--prefill-workers", "a:1", "--decode-workers", "b:2"});
  ASSERT_TRUE(router.is_ok()) << router.status().message();
  EXPECT_EQ(router.value().command, Command::kRouter);
  EXPECT_EQ(router.value().resolved.options.decode_workers, std::vector<std::string>{"b:2"});
  EXPECT_EQ(parse_options({"prefill", "m"}).rpc_port, 9001);
  EXPECT_EQ(parse_options({"decode", "m"}).port, 8002);
  EXPECT_FALSE(parse({"router", "m", "--landing-slots", "4"}).is_ok());
  EXPECT_FALSE(parse({"prefill", "m", "--api-key", "k"}).is_ok());
}

TEST(CommandLineTest, RouterWithoutWorkersIsAnError) {
  const std::string message = parse({"router", "m"}).status().message();
  EXPECT_NE(message.find("--prefill-workers"), std::string::npos) << message;
  EXPECT_NE(message.find("--decode-workers"), std::string::npos) << message;
}

TEST(CommandLineTest, EvalAndCalibrateKnowOnlyWhatConcernsThem) {
  const auto eval =
      parse({"eval", "m", "--text", "t", "--modes", "dcp:2,tpla:2", "--threads", "2"});
  ASSERT_TRUE(eval.is_ok()) << eval.status().message();
  EXPECT_EQ(eval.value().command, Command::kEval);
  EXPECT_EQ(eval.value().resolved.options.text_path, "t");
  EXPECT_EQ(eval.value().resolved.options.dtype, "float32");
  EXPECT_EQ(parse({"calibrate", "m", "--text", "t"}).value().command, Command::kCalibrate);
  EXPECT_FALSE(parse({"eval", "m", "--text", "t", "--port", "1"}).is_ok());
  EXPECT_FALSE(parse({"calibrate", "m", "--text", "t", "--modes", "dcp:2"}).is_ok());
  EXPECT_FALSE(parse({"serve", "m", "--text", "t"}).is_ok());
}

TEST(CommandLineTest, EvalWithoutTextIsAnError) {
  EXPECT_EQ(parse({"eval", "m"}).status().message(), "no text: give --text FILE");
}

TEST(CommandLineTest, BenchTakesItsTargetAndNoFolder) {
  const auto bench = parse({"bench", "http://h:1", "--rate", "2.5", "--model", "m", "--seed", "7"});
  ASSERT_TRUE(bench.is_ok()) << bench.status().message();
  EXPECT_EQ(bench.value().command, Command::kBench);
  const Options& options = bench.value().resolved.options;
  EXPECT_EQ(options.url, "http://h:1");
  EXPECT_EQ(options.rate, "2.5");
  EXPECT_EQ(options.bench_model, "m");
  EXPECT_EQ(options.bench_seed, 7);
  EXPECT_NE(parse({"bench"}).status().message().find("no target"), std::string::npos);
  EXPECT_FALSE(parse({"bench", "http://h:1", "--port", "1"}).is_ok());
  EXPECT_FALSE(parse({"serve", "m", "--rate", "1"}).is_ok());
}

TEST(CommandLineTest, LocalPrefillMustFitOneStep) {
  EXPECT_FALSE(parse({"decode", "m", "--local-prefill-max-tokens", "2000"}).is_ok());
  EXPECT_TRUE(
      parse(
          {"decode", "m", "--local-prefill-max-tokens", "2000", "--max-num-batched-tokens", "2000"})
          .is_ok());
}

}  // namespace
}  // namespace tessera::cli
