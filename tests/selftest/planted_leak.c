/* A test that passes and leaks. The runner must turn it red: see tests/selftest/CMakeLists.txt. */
#include <criterion/criterion.h>
#include <stdlib.h>

Test(planted, leak)
{
    void *volatile memory = malloc(16);
    cr_assert_not_null(memory);
    memory = NULL;
}
