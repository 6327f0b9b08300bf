#include "server/cli/version.h"

#include <gtest/gtest.h>

namespace tessera::cli {
namespace {

TEST(VersionTest, DescriptionNamesEachPart) {
  const std::string text = describe_version("7.8.9");
  for (const char* part : {"tessera", "commit", "compiler", "oneDNN", "CUDA", "UCX       7.8.9"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  EXPECT_NE(text.find(version_number()), std::string::npos);
}

}  // namespace
}  // namespace tessera::cli
