/* A variable that hides another one: with the library's own warnings as errors this has to fail. */
int planted(int count);

int planted(int count)
{
    for (int i = 0; i < 2; i++) {
        int count = i;
        if (count > 0) return count;
    }
    return count;
}
