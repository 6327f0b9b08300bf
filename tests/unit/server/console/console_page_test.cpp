#include "server/console/console_page.h"

#include <fstream>
#include <iterator>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera::console {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ConsolePageTest, IsTheFileThatItWasMadeOf) {
  std::ifstream file(TESSERA_SOURCE_DIR "/server/console/console.html", std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  ASSERT_FALSE(text.empty());
  EXPECT_EQ(page(), text);
}

TEST(ConsolePageTest, LoadsNothingAndNeverMakesMarkupOfData) {
  const std::string text(page());
  for (const char* word : {"innerHTML",
                           "outerHTML",
                           "insertAdjacentHTML",
                           "document.write",
                           "eval(",
                           "http://",
                           "https://",
                           "src=",
                           "@import",
                           "url(",
                           " style=",
                           " onclick="}) {
    EXPECT_THAT(text, Not(HasSubstr(word))) << word;
  }
}

TEST(ConsolePageTest, PolicyAllowsTheInlineTextsByTheirHashes) {
  // printf 'let a' | openssl dgst -sha256 -binary | base64, and the same for 'b{}' and ''.
  const std::string policy = content_security_policy("<style>b{}</style><script>let a</script>");
  EXPECT_THAT(policy, HasSubstr("default-src 'none';"));
  EXPECT_THAT(policy,
              HasSubstr("script-src 'sha256-IfEXP/8HLuXoAiy0hZVrCAcjcLsZqYFpLOHDGj8enqE='"));
  EXPECT_THAT(policy, HasSubstr("style-src 'sha256-7yqHVAesot11p6HczDsgKRipvI5UPgs97z80zNXlans='"));
  EXPECT_THAT(policy, HasSubstr("frame-ancestors 'none'"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  EXPECT_THAT(content_security_policy("<p>no script</p>"),
              HasSubstr("script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"));
}

}  // namespace
}  // namespace tessera::console
